/**
 * The page's conversation without a page: a clock that tests move, sockets that tests hold both ends of.
 * Here are the promises that a real network is too slow or too kind to test.
 */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

// The served file is a module by its script tag, not by a package.json beside it; hence the detour.
const source = await readFile(new URL('../../crates/gateway/src/admin/console/connection.js', import.meta.url), 'utf8');
const { Connection, backoffMs } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

class World {
  now = 0;
  random = 0.5;
  sockets = [];
  heard = { states: [], messages: [], troubles: [], roundTrips: [] };
  #timers = new Map();
  #next = 1;

  constructor() {
    const { heard } = this;
    this.connection = new Connection('ws://node/ws', {
      state: (it) => heard.states.push(it.name),
      channels: () => {},
      message: ({ data }, isOwn) => heard.messages.push([data, isOwn]),
      trouble: (it) => heard.troubles.push(it.code ?? it.text),
      roundTrip: (it) => heard.roundTrips.push(it),
    }, {
      socket: () => this.#open('socket'),
      standIn: () => this.#open('stand-in'),
      after: (ms, then) => {
        this.#timers.set(this.#next, { at: this.now + ms, then });
        return this.#next++;
      },
      cancel: (timer) => this.#timers.delete(timer),
      now: () => this.now,
      random: () => this.random,
    });
  }

  #open(kind) {
    const socket = { kind, sent: [], closed: false, send: (text) => socket.sent.push(...[JSON.parse(text)].flat()), close: () => { socket.closed = true; } };
    this.sockets.push(socket);
    return socket;
  }

  get socket() {
    return this.sockets.at(-1);
  }

  get state() {
    return this.connection.state.name;
  }

  /** What the page sent and no test has looked at yet, without its heartbeat. */
  asked() {
    return this.socket.sent.splice(0).filter((it) => it.type !== 'ping');
  }

  tell(...events) {
    for (const event of events) this.socket.onmessage?.({ data: JSON.stringify(event) });
  }

  welcome() {
    this.tell({ type: 'welcome', session: 's', node: 'n', user: null, heartbeat: 30, channels: [] });
  }

  close(code, reason = '') {
    this.socket.onclose?.({ code, reason });
  }

  /** Until the next attempt to connect. */
  wait() {
    this.pass(this.connection.state.until - this.now);
  }

  pass(ms) {
    const end = this.now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, it]) => it.at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.now = Math.max(this.now, due[1].at);
      due[1].then();
    }
    this.now = end;
  }
}

/** A world whose connection is open and has joined `channels`. */
function open(...channels) {
  const world = new World();
  world.connection.connect();
  for (const channel of channels) world.connection.join(channel);
  world.welcome();
  for (const { channel, id } of world.asked()) world.tell({ type: 'subscribed', channel, id });
  return world;
}

test('the backoff is full jitter under a doubling ceiling that is bounded', () => {
  for (let attempt = 0; attempt < 2_000; attempt += 1) {
    const ceiling = Math.min(15_000, 500 * 2 ** attempt);
    assert.equal(backoffMs(attempt, 0), 0);
    assert.equal(backoffMs(attempt, 0.5), ceiling / 2);
    assert.ok(backoffMs(attempt, 0.999_999) < ceiling);
  }
});

test('what was wanted before the welcome is asked for once after it, in one batch', () => {
  const world = new World();
  world.connection.connect();
  world.connection.join('a');
  world.connection.join('b');
  world.connection.join('a');
  world.welcome();
  assert.deepEqual(world.asked().map(({ type, channel }) => [type, channel]), [['subscribe', 'a'], ['subscribe', 'b']]);
});

test('a lost connection comes back by itself and asks for its channels again', () => {
  const world = open('a', 'b');
  world.connection.leave('b');
  world.close(1006);
  assert.equal(world.state, 'waiting');
  assert.equal(world.connection.channels.get('a').state, 'joining');
  world.pass(500);
  assert.equal(world.sockets.length, 2);
  world.welcome();
  assert.deepEqual(world.asked().map((it) => it.channel), ['a']);
});

test('attempts that fail wait longer and longer, and one that lasts forgives them', () => {
  const world = open();
  const waits = [];
  const fail = () => {
    const from = world.now;
    world.close(1006);
    waits.push(world.connection.state.until - from);
    world.wait();
  };
  for (let i = 0; i < 7; i += 1) fail();
  assert.deepEqual(waits, [250, 500, 1_000, 2_000, 4_000, 7_500, 7_500]);
  world.welcome();
  fail();
  assert.equal(waits.at(-1), 7_500, 'a welcome alone is no proof: the node may close at once, again and again');
  world.welcome();
  for (let i = 0; i < 2; i += 1) {
    world.pass(4_000);
    world.tell({ type: 'pong' });
  }
  fail();
  assert.equal(waits.at(-1), 250);
});

test('the delay that the server asks for is kept to the millisecond', () => {
  const world = open('a');
  world.tell({ type: 'closing', code: 1001, reason: 'going_away', reconnect: true, after: 7_321 });
  world.close(1001);
  world.pass(7_320);
  assert.equal(world.sockets.length, 1);
  world.pass(1);
  assert.equal(world.sockets.length, 2);
  world.close(1006);
  world.pass(500);
  assert.equal(world.sockets.length, 3, 'it was for that close alone');
});

test('a close that forbids coming back is obeyed until the person asks', () => {
  for (const end of [
    (world) => world.close(4403, 'forbidden'),
    (world) => {
      world.tell({ type: 'closing', code: 4401, reason: 'unauthorized', reconnect: false, after: 0 });
      world.close(1006);
    },
  ]) {
    const world = open('a');
    end(world);
    world.pass(3_600_000);
    assert.deepEqual([world.state, world.sockets.length], ['stopped', 1]);
    world.connection.connect();
    world.welcome();
    assert.deepEqual(world.asked().map((it) => it.channel), ['a']);
  }
});

test('a server that falls silent is given up, and its late words are not heard', () => {
  const world = open('a');
  const silent = world.socket;
  world.pass(9_999);
  assert.equal(world.state, 'open');
  world.pass(1);
  assert.ok(silent.closed);
  assert.equal(world.state, 'waiting');
  assert.equal(silent.onmessage, null);
  world.pass(500);
  assert.equal(world.sockets.length, 2);
});

test('a server that answers is kept for ever, and each answer is a round trip', () => {
  const world = open('a');
  for (let i = 0; i < 100; i += 1) {
    world.pass(12);
    world.tell({ type: 'pong' });
    world.pass(4_988);
  }
  assert.equal(world.state, 'open');
  assert.equal(world.socket.sent.filter((it) => it.type === 'ping').length, 100);
  assert.ok(world.heard.roundTrips.every((it) => it === 12));
});

test('messages alone keep a connection alive, and a timer held back does not kill it', () => {
  const world = open('a');
  for (let i = 0; i < 20; i += 1) {
    world.pass(3_000);
    world.tell({ type: 'message', channel: 'a', data: i });
  }
  assert.equal(world.state, 'open');
  world.tell({ type: 'pong' });
  world.now += 600_000; // The next timer fires this late, once.
  world.pass(0);
  assert.equal(world.state, 'open');
});

test('a socket that is never welcomed is given up', () => {
  const world = new World();
  world.connection.connect();
  world.pass(10_000);
  assert.ok(world.socket.closed);
  assert.equal(world.state, 'waiting');
});

test('a channel with history is resumed from the last message heard', () => {
  const world = new World();
  world.connection.connect();
  world.connection.join('a');
  world.welcome();
  world.tell({ type: 'subscribed', channel: 'a', epoch: 'e', offset: 4 });
  world.tell({ type: 'message', channel: 'a', data: 'x', offset: 5 });
  world.asked();
  for (const heard of [5, 6]) {
    world.close(1006);
    world.wait();
    world.welcome();
    assert.deepEqual(world.asked()[0].since, { epoch: 'e', offset: heard });
    // Cut off while catching up with 9: the next attempt goes on from what came, not from where the stream is.
    world.tell({ type: 'subscribed', channel: 'a', epoch: 'e', offset: 9, recovered: true });
    world.tell({ type: 'message', channel: 'a', data: 'y', offset: heard + 1, recovered: true });
  }
  world.close(1006);
  world.wait();
  world.welcome();
  world.asked();
  world.tell({ type: 'subscribed', channel: 'a', epoch: 'e', offset: 9, recovered: true });
  assert.equal(world.connection.channels.get('a').since.offset, 7, 'nothing was heard since');
  world.close(1006);
  world.wait();
  world.welcome();
  world.tell({ type: 'subscribed', channel: 'a', epoch: 'f', offset: 2, recovered: false });
  assert.deepEqual(world.connection.channels.get('a').since, { epoch: 'f', offset: 2 });
  assert.equal(world.heard.troubles.length, 1, 'a gap is told, never hidden');
});

test('whoever comes for the first time has missed nothing', () => {
  const world = new World();
  world.connection.connect();
  world.connection.join('a');
  world.welcome();
  world.tell({ type: 'subscribed', channel: 'a', epoch: 'e', offset: 7, recovered: false });
  assert.deepEqual(world.connection.channels.get('a').since, { epoch: 'e', offset: 7 });
  assert.deepEqual(world.heard.troubles, []);
});

test('a refused channel says why, and an unavailable one is asked for again', () => {
  const world = new World();
  world.connection.connect();
  world.connection.join('shut');
  world.connection.join('away');
  world.welcome();
  const [shut, away] = world.asked();
  world.tell({ type: 'error', id: shut.id, code: 4403, reason: 'forbidden', message: 'no' });
  world.tell({ type: 'error', id: away.id, code: 4503, reason: 'unavailable', message: 'later', retry_after: 300 });
  assert.equal(world.connection.channels.get('shut').state, 'refused');
  assert.equal(world.connection.channels.get('away').state, 'joining');
  world.pass(299);
  assert.deepEqual(world.asked(), []);
  world.pass(500);
  assert.deepEqual(world.asked().map((it) => it.channel), ['away']);
  assert.deepEqual(world.heard.troubles, [4403, 4503]);
});

test('own messages are told from others, and a failed one is not waited for', () => {
  const world = open('a');
  assert.ok(world.connection.publish('a', 'mine'));
  world.tell({ type: 'message', channel: 'a', data: 'theirs' }, { type: 'message', channel: 'a', data: 'mine' }, { type: 'message', channel: 'a', data: 'mine' });
  world.asked();
  world.connection.publish('a', 'lost');
  world.tell({ type: 'error', id: world.asked()[0].id, code: 4503, reason: 'unavailable', message: '' });
  world.tell({ type: 'message', channel: 'a', data: 'lost' });
  assert.deepEqual(world.heard.messages, [['theirs', false], ['mine', true], ['mine', false], ['lost', false]]);
  world.close(1006);
  assert.equal(world.connection.publish('a', 'nobody'), false);
});

test('batches are read in order, and words of a later version are left alone', () => {
  const world = open('a');
  world.socket.onmessage({ data: JSON.stringify([{ type: 'message', channel: 'a', data: 1 }, { type: 'toString' }, { type: 'message', channel: 'a', data: 2 }]) });
  assert.deepEqual(world.heard.messages.map(([data]) => data), [1, 2]);
});

test('where no WebSocket is welcomed a stand-in has its turn, and a WebSocket is tried again', () => {
  const world = new World();
  world.connection.join('a');
  world.connection.connect();
  for (let i = 0; i < 5; i += 1) {
    world.close(1006);
    world.wait();
  }
  assert.deepEqual(world.sockets.map((it) => it.kind), ['socket', 'socket', 'stand-in', 'socket', 'stand-in', 'socket']);
  world.close(1006);
  world.wait();
  world.welcome();
  assert.deepEqual([world.socket.kind, world.connection.state.isStandIn], ['stand-in', true]);
  assert.deepEqual(world.asked().map((it) => it.channel), ['a']);
  world.close(1006);
  world.wait();
  world.welcome();
  assert.deepEqual([world.socket.kind, world.connection.state.isStandIn], ['socket', false]);
});
