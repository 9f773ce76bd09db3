/**
 * permessage-deflate with clients that others wrote: the `ws` of npm, and Chromium, which always offers it.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { Tabs, launch } from './support/browser.mjs';

const base = process.env.FANFARE_URL;
const socketUrl = base.replace(/^http/, 'ws') + '/ws';
const DATA = Array.from({ length: 200 }, (_, id) => ({ id, user: `user-${id % 7}`, text: 'the quick brown κόσμε' }));

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** A client of `ws` that speaks the native protocol, command by command. */
async function connect(perMessageDeflate) {
  const socket = new WebSocket(socketUrl, ['fanfare.v1.json'], { perMessageDeflate });
  let extensions = '';
  socket.on('upgrade', ({ headers }) => (extensions = headers['sec-websocket-extensions'] ?? ''));
  const heard = [];
  let wake = () => {};
  socket.on('message', (text, isBinary) => {
    assert.equal(isBinary, false);
    heard.push(JSON.parse(text));
    wake();
  });
  await once(socket, 'open');
  const next = async () => {
    while (heard.length === 0) await new Promise((resolve) => (wake = resolve));
    return heard.shift();
  };
  assert.equal((await next()).type, 'welcome');
  return {
    extensions,
    next,
    say: (command) => socket.send(JSON.stringify(command)),
    bytes: () => socket._socket.bytesRead,
    close: () => (socket.close(), once(socket, 'close')),
  };
}

for (const [name, offer, answer] of [
  ['everything by default', true, /^permessage-deflate/],
  ['no takeover', { serverNoContextTakeover: true, clientNoContextTakeover: true }, /server_no_context_takeover/],
  ['small windows', { serverMaxWindowBits: 9, clientMaxWindowBits: 10 }, /server_max_window_bits=9/],
  ['the smallest level, everything compressed', { threshold: 0, zlibDeflateOptions: { level: 1 } }, /^permessage-deflate/],
]) {
  test(`ws and the gateway understand each other: ${name}`, async () => {
    const channel = `compression:${encodeURIComponent(name)}`;
    const [plain, deflating] = await Promise.all([connect(false), connect(offer)]);
    assert.equal(plain.extensions, '');
    assert.match(deflating.extensions, answer);
    for (const client of [plain, deflating]) {
      client.say({ type: 'subscribe', id: 1, channel });
      assert.equal((await client.next()).type, 'subscribed');
    }
    const before = { plain: plain.bytes(), deflating: deflating.bytes() };
    for (let round = 0; round < 20; round++) {
      deflating.say({ type: 'publish', channel, data: { round, DATA } });
      for (const client of [plain, deflating]) {
        const event = await client.next();
        assert.equal(event.type, 'message');
        assert.deepEqual(event.data, { round, DATA });
      }
    }
    const [wire, text] = [deflating.bytes() - before.deflating, plain.bytes() - before.plain];
    assert.ok(wire * 4 < text, `${wire} bytes instead of ${text}`);
    await Promise.all([plain.close(), deflating.close()]);
  });
}

test('Chromium agrees to it, and reads and writes compressed messages', async () => {
  const tabs = new Tabs(browser);
  try {
    const page = await tabs.open(base);
    const session = await page.context().newCDPSession(page);
    await session.send('Network.enable');
    const handshake = new Promise((resolve) => session.on('Network.webSocketHandshakeResponseReceived', resolve));
    const echoed = await page.evaluate(
      ([url, data]) =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(url, 'fanfare.v1.json');
          socket.onclose = reject;
          socket.onmessage = ({ data: text }) => {
            const event = JSON.parse(text);
            if (event.type === 'welcome') socket.send(JSON.stringify({ type: 'subscribe', channel: 'compression:chromium' }));
            if (event.type === 'subscribed') socket.send(JSON.stringify({ type: 'publish', channel: event.channel, data }));
            if (event.type === 'message') resolve({ data: event.data, extensions: socket.extensions });
          };
        }),
      [socketUrl, DATA],
    );
    assert.deepEqual(echoed.data, DATA);
    assert.match(echoed.extensions, /^permessage-deflate/);
    const { response } = await handshake;
    const headers = Object.fromEntries(Object.entries(response.headers).map(([key, value]) => [key.toLowerCase(), value]));
    assert.match(headers['sec-websocket-extensions'], /^permessage-deflate/);
  } finally {
    await tabs.close();
  }
});
