/** What an application ships: bundled and minified by esbuild, compressed by gzip and brotli; beside other clients. */

import { readFile } from 'node:fs/promises';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const here = new URL('../../', import.meta.url).pathname;

async function measure(name, contents) {
  const { outputFiles: [{ contents: minified }] } = await build({
    stdin: { contents, resolveDir: here }, bundle: true, minify: true, format: 'esm', target: 'es2022', platform: 'browser', write: false,
  });
  const { version, dependencies = {} } = JSON.parse(await readFile(name === 'fanfare-client' ? `${here}package.json` : `${here}node_modules/${name}/package.json`));
  return { name, version, minified: minified.length, gzip: gzipSync(minified, { level: 9 }).length, brotli: brotliCompressSync(minified).length, dependencies: Object.keys(dependencies) };
}

export const ours = () => measure('fanfare-client', "export * from './index.js'");
export const all = async () => [
  await ours(),
  await measure('centrifuge', "export { Centrifuge } from 'centrifuge'"),
  await measure('pusher-js', "export { default } from 'pusher-js'"),
];

/** As the table in README.md. */
export const table = (rows) => [
  '| | version | minified, bytes | gzip -9 | brotli -11 | dependencies |',
  '| --- | --- | ---: | ---: | ---: | --- |',
  ...rows.map((it) => `| ${it.name} | ${it.version} | ${it.minified} | ${it.gzip} | ${it.brotli} | ${it.dependencies.join(', ') || 'none'} |`),
].join('\n');

if (process.argv[1] === new URL(import.meta.url).pathname) console.log(table(await all()));
