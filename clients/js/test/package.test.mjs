/** What is published to npm: its files, its size, its types, and the example of its README. */

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Gateway } from '../../../tests/browser/support/gateway.mjs';
import { all, ours, table } from './support/size.mjs';

const HERE = new URL('../', import.meta.url).pathname;
const BYTES_MAX = 6 * 1024;
const run = promisify(execFile);
const readme = () => readFile(join(HERE, 'README.md'), 'utf8');

test('it has at most 6 KiB, minified and compressed, and depends on nothing', async () => {
  const { brotli, dependencies } = await ours();
  assert.ok(brotli <= BYTES_MAX, `${brotli} bytes`);
  assert.deepEqual(dependencies, []);
});

test('the sizes in the README are those of now', async () => {
  assert.ok((await readme()).includes(table(await all())), `write:\n${table(await all())}`);
});

test('an installed package has its modules and types, no tests, and can be imported', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'fanfare-pack-'));
  t.after(() => rm(folder, { recursive: true }));
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: HERE });
  const [{ filename, files }] = JSON.parse(stdout);
  const names = files.map((it) => it.path).sort();
  for (const name of ['README.md', 'index.d.ts', 'index.js', 'package.json', 'src/client.js']) assert.ok(names.includes(name), name);
  assert.ok(names.every((it) => !it.includes('test') && !it.includes('node_modules')), `${names}`);
  await writeFile(join(folder, 'package.json'), '{"type":"module"}');
  await run('npm', ['install', '--offline', '--no-audit', '--no-fund', `./${filename}`], { cwd: folder });
  const script = "import { Fanfare, FanfareError } from 'fanfare-client'; console.log(typeof Fanfare, typeof FanfareError)";
  const said = await run(process.execPath, ['--input-type=module', '-e', script], { cwd: folder });
  assert.equal(said.stdout, 'function function\n');
});

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
