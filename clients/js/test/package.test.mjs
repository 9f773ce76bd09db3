/** What is published to npm: its files, its size, its types, and the example of its README. */

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { Gateway } from '../../../tests/browser/support/gateway.mjs';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { all, ours, parts, partsTable, table } from '../scripts/build.mjs';

const HERE = new URL('../', import.meta.url).pathname;
const BYTES_MAX = 6 * 1024;
const run = promisify(execFile);
const readme = () => readFile(join(HERE, 'README.md'), 'utf8');

test('it has at most 6 KiB, minified and compressed, and depends on nothing', async () => {
  const { gzip, dependencies } = await ours();
  assert.ok(gzip <= BYTES_MAX, `${gzip} bytes by gzip -9`);
  assert.deepEqual(dependencies, []);
});

test('the sizes in the README are those of now', async () => {
  for (const rows of [table(await all()), partsTable(await parts())]) assert.ok((await readme()).includes(rows), `npm run size:\n${rows}`);
});

test('an installed package has its modules and types, no tests, and can be imported', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'fanfare-pack-'));
  t.after(() => rm(folder, { recursive: true }));
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: HERE });
  const [{ filename, files }] = JSON.parse(stdout);
  const names = files.map((it) => it.path).sort();
  const modules = (await readdir(join(HERE, 'src'))).map((it) => `src/${it}`);
  assert.deepEqual(names, ['README.md', 'dist/fanfare.min.js', 'index.d.ts', 'index.js', 'min.d.ts', 'package.json', ...modules].sort());
  await writeFile(join(folder, 'package.json'), '{"type":"module"}');
  await run('npm', ['install', '--offline', '--no-audit', '--no-fund', `./${filename}`], { cwd: folder });
  for (const entry of ['fanfare-client', 'fanfare-client/min']) {
    const script = `import { Fanfare, FanfareError } from '${entry}'; console.log(typeof Fanfare, typeof FanfareError)`;
    const said = await run(process.execPath, ['--input-type=module', '-e', script], { cwd: folder });
    assert.equal(said.stdout, 'function function\n');
  }
  const installed = await readFile(join(folder, 'node_modules/fanfare-client/dist/fanfare.min.js'));
  assert.ok(gzipSync(installed, { level: 9 }).length <= BYTES_MAX);
  // An application that is compiled against what is published, and one that is wrong about it.
  const tsc = (program) => compiled(folder, program);
  for (const entry of ['fanfare-client', 'fanfare-client/min']) {
    const begin = `import { Fanfare } from '${entry}';\nconst room = new Fanfare('https://example.org').subscribe<number>('room:1');\n`;
    assert.equal(await tsc(`${begin}room.on('message', ({ data }) => data.toFixed());`), '');
    assert.match(await tsc(`${begin}room.on('message', ({ data }) => data.trim());`), /'trim' does not exist on type 'number'/);
    assert.match(await tsc(`${begin}room.publish('one');`), /not assignable to parameter of type 'number'/);
  }
});

test('what is published is sound in the eyes of publint', async () => {
  await run('npm', ['run', '--silent', 'build'], { cwd: HERE });
  const { messages, pkg } = await publint({ pkgDir: HERE, strict: true });
  assert.deepEqual(messages.map((it) => formatMessage(it, pkg)), []);
});

/** What the compiler says against a program that uses the installed package; nothing when it is right. */
async function compiled(folder, program) {
  await writeFile(join(folder, 'program.ts'), program);
  const flags = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2023,dom', '--types', '', 'program.ts'];
  const tsc = join(HERE, 'node_modules/typescript/bin/tsc');
  return run(process.execPath, [tsc, ...flags], { cwd: folder }).then(() => '', ({ stdout }) => stdout);
}

test('the types say what the client does, and forbid what it does not', async () => {
  await run(process.execPath, [join(HERE, 'node_modules/typescript/bin/tsc'), '-p', HERE]);
});

test('the example of the README runs as it stands', async (t) => {
  const gateway = await Gateway.start([]);
  t.after(() => gateway.stop());
  const [, example] = (await readme()).match(/```js\n(import[\s\S]*?)\n```/);
  const child = spawn(process.execPath, ['--input-type=module', '-e', example], { cwd: HERE, env: { ...process.env, FANFARE_URL: gateway.url } });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => { said += text; });
  const code = await new Promise((resolve) => child.on('exit', resolve));
  assert.deepEqual([code, said], [0, 'anonymous: hello\nconnected by websocket\n']);
});
