/**
 * Starts an example: a gateway of its own, configured by the example's fanfare.toml, and a server for its page.
 *
 *     node examples/support/start.mjs NAME      until ^C
 *
 * The server gives a page four things: the example's files at `/`, the JavaScript client at `/fanfare/`, packages of the example at `/packages/`,
 * and at `/start` what an application's own backend would tell it: where the gateway is and, for `?user=ann`, a token. FANFARE_BIN names the gateway's
 * program; otherwise it is built.
 */

import { execFileSync, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** Everybody knows it: a real one is kept secret. */
const SECRET = 'the secret of an example, which everybody knows';
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

function program() {
  if (process.env.FANFARE_BIN) return process.env.FANFARE_BIN;
  execFileSync('cargo', ['build', '--quiet', '-p', 'fanfare-gateway'], { cwd: ROOT, stdio: 'inherit' });
  const { target_directory: target } = JSON.parse(execFileSync('cargo', ['metadata', '--format-version', '1', '--no-deps'], { cwd: ROOT, maxBuffer: 1 << 26 }));
  return join(target, 'debug', 'fanfare');
}

/** A JSON Web Token, as an application's backend makes them: HS256, an hour. */
export function token(user, claims = {}) {
  const part = (it) => Buffer.from(JSON.stringify(it)).toString('base64url');
  const content = `${part({ alg: 'HS256' })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + 3600, ...claims })}`;
  return `${content}.${createHmac('sha256', SECRET).update(content).digest('base64url')}`;
}

/** A gateway on free ports of loopback. `{ public, internal, stop }`. */
export async function gateway(name) {
  const flags = ['--config', join(ROOT, 'examples', name, 'fanfare.toml'), '--listen', '127.0.0.1:0', '--internal', '127.0.0.1:0'];
  const settings = ['log.format=json', `auth.jwt.hmac_secret=${SECRET}`].flatMap((it) => ['--set', it]);
  const child = spawn(program(), [...flags, ...settings], { stdio: ['ignore', 'ignore', 'pipe'] });
  const said = [];
  for await (const line of createInterface({ input: child.stderr })) {
    said.push(line);
    const event = line.startsWith('{') ? JSON.parse(line) : {};
    if (event.message !== 'serving') continue;
    child.stderr.resume();
    const stop = async () => {
      if (child.exitCode !== null) return;
      child.kill('SIGKILL');
      await once(child, 'exit');
    };
    return { public: `http://${event.public}`, internal: `http://${event.internal}`, stop };
  }
  throw new Error(`the gateway does not start:\n${said.join('\n')}`);
}

/** Whether a user's name may be in a token: what a backend knows of those who are logged in. */
const isUser = (user) => /^[\p{L}\p{N} _-]{1,32}$/u.test(user ?? '');

function pages(name, serving) {
  const places = [['/fanfare/', 'clients/js/'], ['/packages/', `examples/${name}/node_modules/`], ['/support/', 'examples/support/'], ['/', `examples/${name}/`]];
  return createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://example');
    if (pathname === '/start') {
      const user = searchParams.get('user');
      const told = { gateway: serving.public, token: isUser(user) ? token(user, { info: { name: user } }) : undefined };
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(told));
      return;
    }
    if (pathname === '/favicon.ico') {
      response.writeHead(204).end();
      return;
    }
    const [prefix, folder] = places.find(([it]) => pathname.startsWith(it));
    const path = normalize(join(ROOT, folder, pathname === '/' ? 'index.html' : decodeURIComponent(pathname.slice(prefix.length))));
    const type = TYPES[extname(path)];
    try {
      if (!type || !path.startsWith(join(ROOT, folder))) throw new Error('not served');
      response.writeHead(200, { 'content-type': type, 'x-content-type-options': 'nosniff' }).end(await readFile(path));
    } catch {
      response.writeHead(404).end();
    }
  });
}

/** Everything of one example; `page` is where to open it. */
export async function start(name) {
  const serving = await gateway(name);
  const server = pages(name, serving);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const feed = await import(pathToFileURL(join(ROOT, 'examples', name, 'feed.mjs'))).catch((error) => {
    if (error.code !== 'ERR_MODULE_NOT_FOUND' || !error.message.includes('feed.mjs')) throw error;
  });
  const stopFeeding = await feed?.feed(serving, { token });
  return {
    ...serving,
    page: `http://127.0.0.1:${server.address().port}/`,
    stop: async () => {
      await stopFeeding?.();
      server.close();
      server.closeAllConnections();
      await serving.stop();
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const example = await start(process.argv[2]);
  console.log(`open ${example.page}, and a second tab beside it; ^C ends it`);
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => example.stop().then(() => process.exit(0)));
}
