/**
 * The page over TLS: a browser that speaks HTTP/2 opens its WebSocket as one of the streams of the socket that it has
 * (RFC 8441), and the gateway counts it as such.
 */

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { Tabs, launch } from './support/browser.mjs';

const program = process.env.FANFARE_BIN ?? new URL('../../target/debug/fanfare', import.meta.url).pathname;

let folder, gateway, serving, browser;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fanfare-tls-'));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert], { stdio: 'ignore' });
  const settings = [`tls.cert=${cert}`, `tls.key=${key}`, 'log.format=json'].flatMap((it) => ['--set', it]);
  gateway = spawn(program, ['--listen', '127.0.0.1:0', '--internal', '127.0.0.1:0', ...settings], { stdio: ['ignore', 'ignore', 'pipe'] });
  for await (const line of createInterface({ input: gateway.stderr })) {
    serving = JSON.parse(line);
    if (serving.message === 'serving') break;
  }
  assert.equal(serving?.message, 'serving', 'the gateway starts');
  gateway.stderr.resume();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  if (gateway?.exitCode === null) {
    const ended = once(gateway, 'exit');
    gateway.kill('SIGKILL');
    await ended;
  }
  await rm(folder, { recursive: true });
});

async function accepted() {
  const metrics = await (await fetch(`http://${serving.internal}/metrics`)).text();
  const count = (http) => Number(metrics.match(new RegExp(`^fanfare_websockets_accepted_total\\{http="${http}"\\} (\\d+)$`, 'm'))[1]);
  return { http1: count('1\\.1'), http2: count('2') };
}

test('Chromium opens its WebSockets as streams of HTTP/2', async () => {
  const tabs = new Tabs(browser);
  const page = await tabs.open(`https://${serving.public}/`, { ignoreHTTPSErrors: true });
  const heard = await page.evaluate(async () => {
    const open = () => new Promise((resolve, reject) => {
      const socket = new WebSocket(`wss://${location.host}/ws`, 'fanfare.v1.json');
      socket.heard = [];
      socket.onmessage = ({ data }) => socket.heard.push(JSON.parse(data)) === 1 && resolve(socket);
      socket.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
    });
    const hears = (socket, type) => new Promise((resolve) => {
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === type) resolve(event);
      };
    });
    const sockets = [];
    for (let count = 0; count < 20; count += 1) sockets.push(await open());
    const subscribed = sockets.map((socket) => hears(socket, 'subscribed'));
    for (const socket of sockets) socket.send(JSON.stringify({ type: 'subscribe', id: 1, channel: 'room:1' }));
    await Promise.all(subscribed);
    const messages = sockets.map((socket) => hears(socket, 'message'));
    sockets[0].send(JSON.stringify({ type: 'publish', channel: 'room:1', data: 'x'.repeat(50_000) }));
    return (await Promise.all(messages)).map((event) => event.data.length);
  });
  assert.deepEqual(heard, Array(20).fill(50_000));
  // The page has one of its own.
  await page.waitForFunction(() => performance.getEntriesByType('navigation')[0].nextHopProtocol === 'h2');
  const { http1, http2 } = await accepted();
  assert.equal(http1, 0, 'none came by HTTP/1.1');
  assert.ok(http2 >= 20, `${http2} came by HTTP/2`);
  await tabs.close();
});
