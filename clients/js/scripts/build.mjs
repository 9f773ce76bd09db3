/**
 * What a page ships: `npm run build` writes dist/fanfare.min.js, one module with all of the client, and `npm run size` reports its size.
 *
 * Names that begin with `_` are between the client's own modules, and shortened here; `#` names are by esbuild anyway. esbuild joins the
 * modules and names their locals for the compressor, terser folds expressions further.
 */

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { minify } from 'terser';

const HERE = new URL('../', import.meta.url).pathname;
const OURS = "export * from './index.js'";
/** By file: what it is there for. */
const PARTS = {
  'client.js': 'the conversation: connecting, tokens, signs of life, the network',
  'subscription.js': 'recovery, gaps, loops with a bound',
  'desk.js': 'commands: batches, order, repetition, rate, backpressure',
  'http.js': 'Server-Sent Events and long polls',
  'socket.js': 'WebSocket',
  'emitter.js': 'listeners',
  'backoff.js': 'jitter and timers',
  'error.js': 'errors',
};

async function bundled(contents, options) {
  const { outputFiles: [{ text }] } = await build({
    stdin: { contents, resolveDir: HERE }, bundle: true, minify: true, format: 'esm', target: 'es2022', platform: 'browser', write: false, ...options,
  });
  return text;
}

/** The modules of one entry, as small as they get. */
export async function smallest(contents = OURS, options = {}) {
  const text = await bundled(contents, { mangleProps: /^_/, ...options });
  const { code } = await minify(text, { ecma: 2022, module: true, compress: { passes: 3 } });
  return code;
}

const lengths = (text) => ({ minified: Buffer.byteLength(text), gzip: gzipSync(text, { level: 9 }).length, brotli: brotliCompressSync(text).length });

async function measured(name, text) {
  const folder = name === 'fanfare-client' ? HERE : `${HERE}node_modules/${name}/`;
  const { version, dependencies = {} } = JSON.parse(await readFile(`${folder}package.json`));
  return { name, version, ...lengths(text), dependencies: Object.keys(dependencies) };
}

export const ours = async () => measured('fanfare-client', await smallest());
export const all = async () => [
  await ours(),
  await measured('centrifuge', await bundled("export { Centrifuge } from 'centrifuge'")),
  await measured('pusher-js', await bundled("export { default } from 'pusher-js'")),
];
/** Each by itself: compressed together they are less. */
export const parts = () => Promise.all(Object.entries(PARTS).map(async ([file, purpose]) => {
  const others = Object.keys(PARTS).filter((it) => it !== file).map((it) => `./${it}`);
  const text = await smallest(`export * from './src/${file}'`, { external: others });
  return { file, purpose, ...lengths(text) };
}));

/** As the tables in README.md. */
export const table = (rows) => [
  '| | version | minified, bytes | gzip -9 | brotli -11 | dependencies |',
  '| --- | --- | ---: | ---: | ---: | --- |',
  ...rows.map((it) => `| ${it.name} | ${it.version} | ${it.minified} | ${it.gzip} | ${it.brotli} | ${it.dependencies.join(', ') || 'none'} |`),
].join('\n');
export const partsTable = (rows) => [
  '| part | what for | minified, bytes | gzip -9, alone |',
  '| --- | --- | ---: | ---: |',
  ...rows.map((it) => `| ${it.file} | ${it.purpose} | ${it.minified} | ${it.gzip} |`),
].join('\n');

if (process.argv[2] === 'build') {
  await mkdir(`${HERE}dist`, { recursive: true });
  await writeFile(`${HERE}dist/fanfare.min.js`, await smallest());
} else if (process.argv[2] === 'size') {
  console.log(`${table(await all())}\n\n${partsTable(await parts())}`);
}
