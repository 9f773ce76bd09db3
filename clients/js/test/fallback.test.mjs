/** Where WebSocket is blocked, in the ways in which it is; against a gateway and the proxies that do it. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Gateway } from '../../../tests/browser/support/gateway.mjs';
import { Link } from '../../../tests/browser/support/link.mjs';
import { Fanfare } from './support/client.mjs';
import { Listener } from './support/listener.mjs';
import { until } from './support/until.mjs';

let gateway;
let channel;
let open;
before(async () => { 
  gateway = await Gateway.start([
    'namespaces.room.history.size=100', 'namespaces.room.publish=anyone', 'namespaces.room.subscribe=anyone',
    'namespaces.live.publish=anyone', 'namespaces.live.subscribe=anyone',
  ]);
 });
after(() => gateway?.stop());
beforeEach(() => {
  channel = `room:${randomUUID()}`;
  open = [];
});
afterEach(() => Promise.all(open.map((it) => it.close())));

const listener = (url, options, name = channel) => {
  const it = new Listener(url, name, options);
  open.push(it);
  return it.ready();
};

/** A proxy that takes no upgrade and hands a response on when it has ended; `asked` are the paths, and `fails` says which it cannot serve. */
async function holdingBack(t, fails = () => false) {
  const asked = [];
  const server = createServer((question, answer) => {
    asked.push(question.url);
    if (fails(question.url)) return answer.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad Gateway</h1>');
    const onward = request(gateway.url + question.url, { method: question.method, headers: question.headers }, async (response) => {
      const parts = await response.toArray().catch(() => []);
      answer.writeHead(response.statusCode, response.headers).end(Buffer.concat(parts));
    });
    onward.on('error', () => answer.destroy());
    answer.on('close', () => onward.destroy());
    question.pipe(onward);
  });
  server.on('upgrade', (_, socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, asked };
}

test('a proxy that also holds responses back is got past by polling', async (t) => {
  const proxy = await holdingBack(t);
  const it = await listener(proxy.url, { welcomeMs: 1000 });
  assert.ok(it.states.includes('sse'), 'it has tried');
  assert.equal(it.fanfare.state.transport, 'poll');
  for (let n = 1; n <= 20; n += 1) await it.room.publish(n);
  await it.heardAll(20);
});

test('on a channel without history a poll waits for what comes, and does not spin', async (t) => {
  const proxy = await holdingBack(t);
  const it = await listener(proxy.url, { transports: ['poll'] }, 'live:1');
  const before = proxy.asked.filter((path) => path.startsWith('/poll?')).length;
  await it.room.publish('x');
  await until(() => it.heard.length === 1);
  await it.room.publish('y');
  await until(() => it.heard.length === 2);
  const polls = proxy.asked.filter((path) => path.startsWith('/poll?')).length - before;
  assert.ok(polls <= 3, `${polls} polls for two messages`);
});

test('a channel more, or less, goes on with the others where they were', async () => {
  for (const transport of ['sse', 'poll']) {
    channel = `room:${randomUUID()}`;
    const it = await listener(gateway.url, { transports: [transport] });
    const speaker = new Fanfare(gateway.url);
    open.push(speaker);
    for (let n = 1; n <= 30; n += 1) {
      if (n % 3 === 0) it.fanfare.subscribe(`room:${channel}${n}`);
      if (n % 6 === 0) it.fanfare.subscribe(`room:${channel}${n - 3}`).unsubscribe();
      await speaker.publish(channel, n);
    }
    await it.heardAll(30);
    assert.equal(it.losses, 0);
  }
});

test('a channel that is refused is told so, and the others are heard', async () => {
  for (const transport of ['websocket', 'sse', 'poll']) {
    const it = await listener(gateway.url, { transports: [transport] });
    const refused = it.fanfare.subscribe('nowhere:1');
    const { code } = await refused.once('unsubscribed');
    assert.equal(code, 4404);
    await assert.rejects(async () => { for await (const _ of it.fanfare.subscribe('nowhere:2')); }, { code: 4404 });
    await it.room.publish(1);
    await it.heardAll(1);
    it.close();
    channel = `room:${randomUUID()}`;
  }
});

test('a channel without history takes a publication, over every transport, and a reconnect on it is told as a gap', async () => {
  for (const transport of ['websocket', 'sse']) {
    const wire = new Link(gateway.url);
    await wire.mend();
    open.push({ close: () => wire.cut() });
    const it = await listener(wire.url, { transports: [transport] }, 'live:2');
    await it.room.publish(1);
    await until(() => it.heard.length === 1);
    await wire.cut();
    await until(() => it.losses > 0);
    await wire.mend();
    await until(() => it.gaps.length > 0);
    assert.deepEqual(it.gaps, ['no_history']);
    it.close();
  }
});

test('what needs a WebSocket fails without one, at once and with a reason', async () => {
  const it = await listener(gateway.url, { transports: ['sse'] });
  await assert.rejects(it.room.history(), { code: 4404, message: 'needs WebSocket' });
});

test('a proxy that reaches no node is not taken for a yes', async (t) => {
  const proxy = await holdingBack(t);
  const it = await listener(proxy.url, { transports: ['poll'] });
  const server = createServer((_, answer) => answer.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad Gateway</h1>'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const away = new Fanfare(`http://127.0.0.1:${server.address().port}`, { transports: ['poll'], timeoutMs: 1500 });
  open.push(away);
  await assert.rejects(away.publish(channel, 1), { reason: 'timeout' });
  await it.room.publish(1);
  await it.heardAll(1);
});

test('a publication that a proxy brought to no node is said again, until one has taken it', async (t) => {
  let failures = 1;
  const proxy = await holdingBack(t, (path) => path === '/publish' && failures-- > 0);
  const it = await listener(proxy.url, { transports: ['poll'] });
  await it.room.publish(1);
  await it.heardAll(1);
  assert.equal(proxy.asked.filter((path) => path === '/publish').length, 2);
  assert.equal(it.losses, 0, 'for that the conversation need not end');
});
