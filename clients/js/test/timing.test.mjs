/** What the client does when: on time that the tests move, against a real socket. */

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { Fanfare } from './support/client.mjs';
import { Clock, draws } from './support/clock.mjs';
import { LIMITS, Peer } from './support/peer.mjs';
import { until } from './support/until.mjs';

let fanfare;
afterEach(() => fanfare?.close());

const connected = () => until(() => fanfare.state.name === 'connected');
const isWaiting = () => fanfare.state.name === 'waiting';

/** A browser's network, as far as the client asks. */
class Network extends EventTarget {
  onLine = true;

  turn(onLine) {
    this.onLine = onLine;
    this.dispatchEvent(new Event(onLine ? 'online' : 'offline'));
  }
}

test('waits between failures are drawn from nothing to a ceiling that doubles up to its limit', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t);
  peer.refuses = true;
  draws(t, 0.5);
  fanfare = new Fanfare(peer.url, { transports: ['websocket'], backoff: { baseMs: 500, maxMs: 3000 } });
  const waits = [];
  for (let round = 0; round < 5; round += 1) {
    await until(isWaiting);
    waits.push(fanfare.state.waitMs);
    clock.pass(fanfare.state.waitMs - 1);
    assert.equal(fanfare.state.name, 'waiting', 'not before its time');
    clock.pass(2);
    assert.equal(fanfare.state.name, 'connecting');
  }
  assert.deepEqual(waits, [250, 500, 1000, 1500, 1500]);
});

test('the whole of a wait is random: a draw of nothing waits for nothing', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t);
  peer.refuses = true;
  draws(t, 0);
  fanfare = new Fanfare(peer.url, { transports: ['websocket'] });
  await until(isWaiting);
  assert.equal(fanfare.state.waitMs, 0);
  clock.pass(1);
  assert.equal(fanfare.state.name, 'connecting');
});

test('after a good connection the ceiling is low again', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t);
  draws(t, 0.99);
  fanfare = new Fanfare(peer.url, { transports: ['websocket'] });
  for (const [livedMs, waitMs] of [[100, 495], [100, 990], [6000, 495]]) {
    await connected();
    clock.pass(livedMs);
    peer.conversations.at(-1).socket.terminate();
    await until(isWaiting);
    assert.equal(fanfare.state.waitMs, waitMs);
    clock.pass(waitMs + 1);
  }
});

test('the wait that `closing` names is kept to the millisecond, also when the network comes back meanwhile', async (t) => {
  const clock = new Clock(t);
  const network = new Network();
  const peer = await Peer.listen(t);
  fanfare = new Fanfare(peer.url, { network });
  await connected();
  (await peer.conversation(1)).closing({ after: 7000 });
  await until(isWaiting);
  assert.equal(fanfare.state.waitMs, 7000);
  network.turn(true);
  clock.pass(6999);
  assert.equal(fanfare.state.name, 'waiting');
  clock.pass(1);
  assert.equal(fanfare.state.name, 'connecting');
});

test('a close that says not to come back ends it, and what was asked fails with its code', async (t) => {
  const peer = await Peer.listen(t);
  fanfare = new Fanfare(peer.url);
  await connected();
  const published = fanfare.publish('room:1', 'x');
  await (await peer.conversation(1)).command('publish');
  (await peer.conversation(1)).closing({ code: 4403, reason: 'forbidden', reconnect: false });
  await assert.rejects(published, { code: 4403, isUncertain: true });
  assert.deepEqual([fanfare.state.name, fanfare.state.code], ['closed', 4403]);
});

test('silence is met by a ping, and a ping without an answer by another connection', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t, { heartbeat: 10 });
  draws(t, 0.99);
  fanfare = new Fanfare(peer.url, { pongMs: 4000 });
  await connected();
  const conversation = await peer.conversation(1);
  const first = await conversation.command('ping');
  conversation.say({ type: 'pong', id: first.id, time: Date.now() });
  const room = fanfare.subscribe('room:1');
  const heard = room.once('message');
  await conversation.admit();
  conversation.say({ type: 'message', channel: 'room:1', offset: 1, data: 1 });
  await heard;
  await clock.passUntil(() => conversation.commands.filter((it) => it.type === 'ping').length === 2);
  assert.equal(fanfare.state.name, 'connected');
  clock.pass(3900);
  assert.equal(fanfare.state.name, 'connected', 'it has its time to answer');
  clock.pass(200);
  assert.deepEqual([fanfare.state.name, fanfare.state.reason], ['waiting', 'silence']);
  assert.equal(room.state, 'subscribing');
});

test('a server that talks is not asked whether it is there', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t, { heartbeat: 10 });
  fanfare = new Fanfare(peer.url);
  await connected();
  const conversation = await peer.conversation(1);
  await conversation.command('ping');
  const room = fanfare.subscribe('room:1');
  await conversation.admit();
  for (let offset = 1; offset <= 20; offset += 1) {
    const heard = room.once('message');
    conversation.say({ type: 'message', channel: 'room:1', offset, data: 1 });
    await heard;
    clock.pass(3000);
  }
  assert.equal(conversation.commands.filter((it) => it.type === 'ping').length, 1);
  assert.equal(fanfare.state.name, 'connected');
});

test('a socket that opens and is never welcomed is given up', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t, { greets: false });
  fanfare = new Fanfare(peer.url, { welcomeMs: 5000 });
  await peer.conversation(1);
  clock.pass(4999);
  assert.equal(fanfare.state.name, 'connecting');
  clock.pass(1);
  assert.deepEqual([fanfare.state.name, fanfare.state.reason], ['waiting', 'no_welcome']);
});

test('offline it does not hammer, and online it comes back at once', async (t) => {
  const clock = new Clock(t);
  const network = new Network();
  const peer = await Peer.listen(t);
  draws(t, 0.5);
  fanfare = new Fanfare(peer.url, { network, transports: ['websocket'], backoff: { baseMs: 500, maxMs: 20_000 } });
  await connected();
  network.turn(false);
  peer.conversations[0].socket.terminate();
  await until(isWaiting);
  assert.equal(fanfare.state.waitMs, 20_000);
  clock.pass(15_000);
  assert.equal(peer.conversations.length, 1);
  network.turn(true);
  clock.pass(251);
  await connected();
  assert.equal(peer.conversations.length, 2);
});

test('when the network has changed, a connection is asked at once whether it still carries anything', async (t) => {
  const clock = new Clock(t);
  const network = new Network();
  const peer = await Peer.listen(t);
  draws(t, 0.99);
  fanfare = new Fanfare(peer.url, { network, pongMs: 3000 });
  await connected();
  const conversation = await peer.conversation(1);
  const first = await conversation.command('ping');
  clock.pass(10);
  const before = fanfare.once('pong');
  conversation.say({ type: 'pong', id: first.id, time: Date.now() }, { type: 'error', code: 4400, reason: 'seen', message: 'seen' });
  await Promise.race([before, fanfare.once('error')]);
  network.turn(false);
  network.turn(true);
  await conversation.command('ping', 2);
  clock.pass(3001);
  assert.deepEqual([fanfare.state.name, fanfare.state.reason], ['waiting', 'silence']);
});

test('what is asked in one turn goes in one frame, in the order in which it was asked', async (t) => {
  const peer = await Peer.listen(t);
  fanfare = new Fanfare(peer.url);
  const names = Array.from({ length: 100 }, (_, i) => `room:${i}`);
  for (const name of names) fanfare.subscribe(name);
  const conversation = await peer.conversation(1);
  await conversation.command('subscribe', 100);
  const frames = conversation.frames.filter((it) => Array.isArray(it));
  assert.deepEqual(frames.map((it) => it.length), [64, 36]);
  assert.deepEqual(frames.flat().map((it) => it.channel), names);
});

test('a frame is no longer than the server takes, and a command that is fails by itself', async (t) => {
  const peer = await Peer.listen(t, { limits: { ...LIMITS, message_bytes: 1000 } });
  fanfare = new Fanfare(peer.url);
  await connected();
  const long = fanfare.publish('room:0', 'ü'.repeat(500));
  for (let i = 1; i <= 5; i += 1) fanfare.publish(`room:${i}`, 'x'.repeat(300)).catch(() => {});
  await assert.rejects(long, { code: 4413, isUncertain: false });
  const conversation = await peer.conversation(1);
  await conversation.command('publish', 5);
  for (const frame of conversation.frames) assert.ok(Buffer.byteLength(JSON.stringify(frame)) <= 1000);
});

test('no more is said in a second than the server lets', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t, { limits: { ...LIMITS, messages_per_second: 10 } });
  fanfare = new Fanfare(peer.url);
  await connected();
  const conversation = await peer.conversation(1);
  for (let i = 0; i < 30; i += 1) fanfare.publish(`room:${i}`, i).catch(() => {});
  await conversation.command('publish', 9);
  clock.pass(1000);
  await conversation.command('publish', 18);
  const said = conversation.commands.filter((it) => it.type === 'publish').length;
  assert.ok(said <= 19, `${said} after a second and a first burst of 9`);
});

test('while the socket holds back what was sent, more waits in the client, and the queue has a bound', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t);
  let buffered = 0;
  class Slow extends WebSocket {
    get bufferedAmount() { return buffered || super.bufferedAmount; }
  }
  fanfare = new Fanfare(peer.url, { WebSocket: Slow, bufferedBytesMax: 1000, queueMax: 3 });
  await connected();
  const conversation = await peer.conversation(1);
  await conversation.command('ping');
  buffered = 1001;
  const published = [1, 2, 3].map((n) => fanfare.publish('room:1', n, { ordered: false }));
  const over = fanfare.publish('room:1', 4);
  await assert.rejects(over, { reason: 'queue_full', isUncertain: false });
  clock.pass(500);
  await new Promise(setImmediate);
  assert.equal(conversation.commands.filter((it) => it.type === 'publish').length, 0);
  buffered = 0;
  clock.pass(50);
  await conversation.command('publish', 3);
  for (const { id, channel } of conversation.commands.filter((it) => it.type === 'publish')) {
    conversation.say({ type: 'published', id, channel });
  }
  await Promise.all(published);
});

test('a command that is refused for the moment is said again after the wait that it was told', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t);
  draws(t, 0);
  fanfare = new Fanfare(peer.url);
  await connected();
  const conversation = await peer.conversation(1);
  for (const code of [4429, 4503]) {
    const published = fanfare.publish('room:1', code);
    const first = await conversation.command('publish');
    conversation.say({ type: 'error', id: first.id, channel: 'room:1', code, reason: 'later', message: 'later', retry_after: 2000 });
    const seen = fanfare.once('error');
    conversation.say({ type: 'error', code: 4400, reason: 'seen', message: 'seen' });
    await seen;
    clock.pass(1990);
    await new Promise(setImmediate);
    assert.equal(conversation.commands.filter((it) => it.type === 'publish').length, 1);
    clock.pass(20);
    const again = await conversation.command('publish', 2);
    assert.deepEqual(again, first, 'the same under the same key');
    conversation.say({ type: 'published', id: again.id, channel: 'room:1' });
    await published;
    conversation.frames = [];
  }
});

test('publications of a channel do not overtake one that has to be said again', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t);
  fanfare = new Fanfare(peer.url);
  await connected();
  const conversation = await peer.conversation(1);
  const published = [1, 2, 3].map((n) => fanfare.publish('room:1', n));
  const placed = [];
  const first = await conversation.command('publish');
  conversation.say({ type: 'error', id: first.id, code: 4503, reason: 'unavailable', message: 'away', retry_after: 100 });
  conversation.frames = [];
  for (let nth = 1; nth <= 3; nth += 1) {
    await clock.passUntil(() => conversation.commands.filter((it) => it.type === 'publish').length >= nth);
    const { id, channel, data } = await conversation.command('publish', nth);
    placed.push(data);
    conversation.say({ type: 'published', id, channel });
  }
  await Promise.all(published);
  assert.deepEqual(placed, [1, 2, 3]);
});

test('a publication whose connection is lost is said again under its key, one without a key fails as uncertain', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t);
  fanfare = new Fanfare(peer.url);
  const kept = fanfare.publish('room:1', 'kept', { ordered: false });
  const bare = fanfare.publish('room:1', 'bare', { key: null, ordered: false });
  const first = await peer.conversation(1);
  const { key } = await first.command('publish', 1);
  await first.command('publish', 2);
  assert.match(key, /^\d+(-\d+){3}$/);
  first.socket.terminate();
  await assert.rejects(bare, { reason: 'disconnected', isUncertain: true });
  await clock.passUntil(() => peer.conversations.length === 2);
  const second = await peer.conversation(2);
  const again = await second.command('publish');
  assert.deepEqual([again.key, again.data], [key, 'kept']);
  second.say({ type: 'published', id: again.id, channel: 'room:1' });
  await kept;
  assert.equal(second.commands.filter((it) => it.type === 'publish').length, 1);
});

test('what is not answered in its time fails, and says whether it was sent', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t);
  fanfare = new Fanfare(peer.url, { transports: ['websocket'], timeoutMs: 9000, pongMs: 60_000 });
  await connected();
  const conversation = await peer.conversation(1);
  const sent = assert.rejects(fanfare.presence('room:1'), { reason: 'timeout', isUncertain: true });
  await conversation.command('presence');
  clock.pass(9001);
  await sent;
  peer.refuses = true;
  conversation.socket.terminate();
  await until(() => fanfare.state.name !== 'connected');
  const unsent = assert.rejects(fanfare.presence('room:1'), { reason: 'timeout', isUncertain: false });
  clock.pass(9001);
  await unsent;
});

test('a token is replaced in the conversation before it expires, by the clock of the server', async (t) => {
  const clock = new Clock(t);
  const off = 3_600_000; // The client's clock is an hour behind.
  const peer = await Peer.listen(t, { greets: false });
  let count = 0;
  fanfare = new Fanfare(peer.url, { pingMs: 1e9, getToken: async () => `token-${++count}` });
  const conversation = await peer.conversation(1);
  const { id, token } = await conversation.command('auth');
  assert.equal(token, 'token-1');
  const expires = (Date.now() + off) / 1000 + 600;
  const seen = fanfare.once('error');
  conversation.welcome({ id, user: 'ann', expires, heartbeat: 1e6 });
  const ping = await conversation.command('ping');
  conversation.say({ type: 'pong', id: ping.id, time: Date.now() + off }, { type: 'error', code: 4400, reason: 'seen', message: 'seen' });
  await seen;
  clock.pass(479_000, 5000);
  assert.equal(count, 1);
  clock.pass(62_000, 1000);
  const second = await conversation.command('auth', 2);
  assert.equal(second.token, 'token-2');
  conversation.say({ type: 'refreshed', id: second.id, expires: expires + 600 });
  assert.equal(peer.conversations.length, 1);
});

test('a token that a server calls expired is replaced, and without another the client stops', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t, { greets: false });
  const tokens = ['old', 'new', null];
  fanfare = new Fanfare(peer.url, { getToken: async () => tokens.shift() });
  for (const [number, token] of [[1, 'old'], [2, 'new']]) {
    const conversation = await peer.conversation(number);
    const command = await conversation.command('auth');
    assert.equal(command.token, token);
    conversation.say({ type: 'error', id: command.id, code: 4401, reason: 'unauthorized', message: 'expired' });
    conversation.closing({ code: 4401, reason: 'unauthorized', reconnect: false });
    await until(() => fanfare.state.name !== 'connecting');
    await clock.passUntil(() => fanfare.state.name !== 'waiting');
  }
  await until(() => fanfare.state.name === 'closed');
  assert.equal(fanfare.state.code, 4401);
  assert.equal(peer.conversations.length, 2);
});

test('a token that cannot be fetched is asked for again, and told of', async (t) => {
  const clock = new Clock(t);
  const peer = await Peer.listen(t, { greets: false });
  let count = 0;
  fanfare = new Fanfare(peer.url, {
    getToken: async () => {
      count += 1;
      if (count < 3) throw new Error('the shop is closed');
      return 'at last';
    },
  });
  const told = [];
  fanfare.on('error', (error) => told.push(error.message));
  await clock.passUntil(() => peer.conversations.length === 1);
  const { token } = await (await peer.conversation(1)).command('auth');
  assert.equal(token, 'at last');
  assert.deepEqual(told, ['the shop is closed', 'the shop is closed']);
});
