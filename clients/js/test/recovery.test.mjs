/** What happens between a subscription and its stream once in a thousand years: said by a peer on a real socket. */

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { Fanfare } from './support/client.mjs';
import { Peer } from './support/peer.mjs';
import { until, within } from './support/until.mjs';

let fanfare;
afterEach(() => fanfare?.close());

/** A subscription, and all that it is told. */
function listen(url, options = {}, more = {}) {
  fanfare = new Fanfare(url, { backoff: { baseMs: 5, maxMs: 5 }, ...more });
  const room = fanfare.subscribe('room:1', options);
  const told = [];
  room.on('message', ({ epoch, offset }) => told.push(`${epoch}${offset}`));
  room.on('gap', ({ cause }) => told.push(cause));
  return { room, told };
}

const message = (offset, more) => ({ type: 'message', channel: 'room:1', offset, data: offset, ...more });
const hears = (told, last) => until(() => told.includes(last), last);

test('a replay that is cut in the middle is gone on with where it was cut', async (t) => {
  const peer = await Peer.listen(t);
  const { told } = listen(peer.url);
  const first = await peer.conversation(1);
  await first.admit(1, { epoch: 'a', offset: 2, recovered: false });
  first.say(message(3));
  await hears(told, 'a3');
  first.socket.terminate();
  const second = await peer.conversation(2);
  assert.deepEqual(await second.admit(1, { epoch: 'a', offset: 9, recovered: true }), { epoch: 'a', offset: 3 });
  second.say(message(4));
  await hears(told, 'a4');
  second.socket.terminate();
  const third = await peer.conversation(3);
  assert.deepEqual(await third.admit(1, { epoch: 'a', offset: 9, recovered: true }), { epoch: 'a', offset: 4 });
  third.say(...[5, 6, 7, 8, 9].map((offset) => message(offset)));
  await hears(told, 'a9');
  assert.deepEqual(told, ['a3', 'a4', 'a5', 'a6', 'a7', 'a8', 'a9']);
});

test('a replay into another epoch that is cut before it began is asked for again by the old place', async (t) => {
  const peer = await Peer.listen(t);
  const { told } = listen(peer.url, { since: { epoch: 'a', offset: 6 } });
  const first = await peer.conversation(1);
  assert.deepEqual(await first.admit(1, { epoch: 'b', offset: 8, recovered: true }), { epoch: 'a', offset: 6 });
  await until(() => fanfare.subscriptions.get('room:1').state === 'subscribed');
  first.socket.terminate();
  const second = await peer.conversation(2);
  assert.deepEqual(await second.admit(1, { epoch: 'b', offset: 8, recovered: true }), { epoch: 'a', offset: 6 });
  second.say(message(7), message(8));
  await hears(told, 'b8');
  assert.deepEqual(told, ['b7', 'b8']);
});

test('what comes twice is told once', async (t) => {
  const peer = await Peer.listen(t);
  const { told } = listen(peer.url);
  const first = await peer.conversation(1);
  await first.admit();
  first.say(message(1), message(1), message(2), message(1), message(3));
  await hears(told, 'e3');
  assert.deepEqual(told, ['e1', 'e2', 'e3']);
});

test('what is gone is told between what was heard before and what comes', async (t) => {
  const peer = await Peer.listen(t);
  const { room, told } = listen(peer.url);
  const loop = room[Symbol.asyncIterator]();
  const first = await peer.conversation(1);
  await first.admit();
  first.say(message(1));
  await hears(told, 'e1');
  first.socket.terminate();
  const second = await peer.conversation(2);
  await second.admit(1, { epoch: 'f', offset: 40, recovered: false });
  second.say(message(41));
  await hears(told, 'f41');
  assert.deepEqual(told, ['e1', 'lost', 'f41']);
  const looped = [];
  while (looped.length < 3) looped.push((await within(loop.next(), 'the next event')).value.type);
  assert.deepEqual(looped, ['message', 'gap', 'message']);
  assert.deepEqual(room.position, { epoch: 'f', offset: 41 });
});

test('a place that the server lost is told, and entered again from where it was', async (t) => {
  const peer = await Peer.listen(t);
  const { room, told } = listen(peer.url);
  const first = await peer.conversation(1);
  await first.admit();
  first.say(message(1));
  const interrupted = room.once('interrupted');
  first.say({ type: 'unsubscribed', channel: 'room:1', code: 4410, reason: 'gap' }, message(2));
  assert.equal((await within(interrupted, 'the interruption')).code, 4410);
  assert.deepEqual(await first.admit(2, { epoch: 'e', offset: 2, recovered: true }), { epoch: 'e', offset: 1 });
  first.say(message(2));
  await hears(told, 'e2');
  assert.deepEqual(told, ['e1', 'e2']);
  assert.equal(peer.conversations.length, 1);
});

test('a channel that the server says is subscribed to already is left, and entered where it was', async (t) => {
  const peer = await Peer.listen(t);
  listen(peer.url, { since: { epoch: 'e', offset: 5 } });
  const first = await peer.conversation(1);
  const { id } = await first.command('subscribe');
  first.say({ type: 'error', id, channel: 'room:1', code: 4409, reason: 'conflict', message: 'already' });
  await first.command('unsubscribe');
  assert.deepEqual((await first.command('subscribe', 2)).since, { epoch: 'e', offset: 5 });
});

test('a loop on a channel without history that is too slow is told how many gave way', async (t) => {
  const peer = await Peer.listen(t);
  const { room } = listen(peer.url, { bufferMax: 4 });
  const loop = room[Symbol.asyncIterator]();
  const first = await peer.conversation(1);
  await first.admit(1, {});
  let heard = 0;
  room.on('message', () => { heard += 1; });
  for (let n = 1; n <= 10; n += 1) first.say({ type: 'message', channel: 'room:1', data: n });
  await until(() => heard === 10);
  const got = [];
  for (let n = 0; n < 4; n += 1) {
    const { value } = await within(loop.next(), 'the next event');
    got.push(value.cause ? `${value.cause} ${value.missed}` : value.data);
  }
  assert.deepEqual(got, ['overflow 7', 8, 9, 10]);
});

test('leaving a loop leaves the subscription, and unsubscribing ends the loop', async (t) => {
  const peer = await Peer.listen(t);
  const { room } = listen(peer.url);
  const first = await peer.conversation(1);
  await first.admit();
  first.say(message(1));
  for await (const event of room) {
    assert.equal(event.offset, 1);
    break;
  }
  assert.equal(room.state, 'subscribed');
  const ended = (async () => { for await (const _ of room); })();
  room.unsubscribe();
  await within(ended, 'the end of the loop');
  await first.command('unsubscribe');
  assert.equal(fanfare.subscriptions.size, 0);
});
