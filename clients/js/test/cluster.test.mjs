/** Nodes, Redis and nginx as they are run, under faults: everybody hears everything once and in order, or is told. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Fanfare } from './support/client.mjs';
import { Link } from '../../../tests/browser/support/link.mjs';
import { Cluster } from './support/cluster.mjs';
import { Listener } from './support/listener.mjs';
import { until, within } from './support/until.mjs';

let cluster;
let channel;
let open;
before(async () => {
  // More is kept than is published while somebody is away: what is lost then is lost by a mistake.
  cluster = await Cluster.up({
    FANFARE__NAMESPACES__ROOM__HISTORY__SIZE: '20000',
    FANFARE__NAMESPACES__ROOM__PUBLISH: 'anyone',
    FANFARE__NAMESPACES__ROOM__SUBSCRIBE: 'anyone',
    FANFARE__NAMESPACES__ROOM__PRESENCE: 'true',
  });
});
after(() => cluster?.down());
beforeEach(() => {
  channel = `room:${randomUUID()}`;
  open = [];
});
afterEach(() => open.forEach((it) => it.close()));

const listener = async (url = cluster.url, options, subscription) => {
  const it = new Listener(url, channel, options, subscription);
  open.push(it);
  return it.ready();
};

const client = (url = cluster.url, options) => {
  const it = new Fanfare(url, { backoff: { baseMs: 100, maxMs: 1000 }, ...options });
  open.push(it);
  return it;
};

const link = async (options) => {
  const it = new Link(cluster.url, options);
  await it.mend();
  open.push({ close: () => it.cut() });
  return it;
};

/** Publishes 1, 2, 3 … until `stop()`, which tells how many. */
function publishing(fanfare) {
  let count = 0;
  let isOver = false;
  const all = (async () => {
    while (!isOver) {
      count += 1;
      await fanfare.publish(channel, count);
    }
    return count;
  })();
  return { reaches: (number) => until(() => count >= number, `publication ${number}`), get count() { return count; }, stop: () => { isOver = true; return all; } };
}

for (const transports of [['websocket'], ['sse'], ['poll']]) {
  test(`nodes are killed and drained, and over ${transports} nothing is lost, doubled or out of order`, async () => {
    const listeners = [await listener(cluster.url, { transports }), await listener(cluster.url, { transports })];
    const publisher = client(cluster.url, { transports });
    const stream = publishing(publisher);
    await stream.reaches(20);
    for (const [fault, node] of [['kill', 'node-1'], ['restart', 'node-1'], ['restart', 'node-2'], ['restart', 'node-1']]) {
      await cluster[fault](node);
      await stream.reaches(stream.count + 20);
    }
    const last = await stream.stop();
    for (const it of listeners) await it.heardAll(last);
    const losses = listeners.reduce((sum, it) => sum + it.losses, 0);
    // Between two polls there is nothing to be lost: a poll may go through all of it without noticing.
    assert.ok(losses >= 2 || transports[0] === 'poll', `they were cut off ${losses} times`);
  });
}

test('a drained node is left by `closing`, after the wait that it names, and nothing is missed', async () => {
  const it = await listener();
  const { node } = it;
  let told;
  it.fanfare.on('state', (state) => { if (state.name === 'waiting') told ??= state; });
  const stream = publishing(client());
  await stream.reaches(10);
  await cluster.restart(node);
  await stream.reaches(stream.count + 10);
  assert.deepEqual([told.code, told.isTold], [1001, true]);
  await it.heardAll(await stream.stop());
});

test('a network that is away and comes back, again and again, has lost nothing', async () => {
  const wire = await link();
  const [behind, speaker] = [await listener(wire.url), client(wire.url)];
  const stream = publishing(speaker);
  for (let round = 0; round < 4; round += 1) {
    await stream.reaches(stream.count + 10);
    await wire.cut();
    await until(() => behind.losses > round, 'the loss');
    await client().publish(`${channel}-else`, round);
    await wire.mend();
  }
  await stream.reaches(stream.count + 10);
  await behind.heardAll(await stream.stop());
});

test('where upgrades are refused it falls back to SSE, and returns to WebSocket when one is let through', async () => {
  const wire = await link({ refuses: /^GET \/ws/ });
  const it = await listener(wire.url, { probeMs: 300 });
  assert.deepEqual(it.states, ['waiting', 'connecting', 'waiting', 'connecting', 'sse', 'sse']);
  const stream = publishing(it.fanfare);
  await stream.reaches(10);
  wire.refuses = undefined;
  await until(() => it.states.at(-1) === 'websocket', 'a WebSocket');
  await stream.reaches(stream.count + 10);
  await it.heardAll(await stream.stop());
});

test('Redis forgets everything: the client is told that messages are gone, and hears what comes', async () => {
  const it = await listener();
  await it.room.publish(1);
  await until(() => it.heard.length === 1);
  await cluster.forget();
  const stream = publishing(client());
  await until(() => it.gaps.length > 0, 'a gap');
  assert.ok(it.gaps.every((cause) => cause === 'lost'), `${it.gaps}`);
  const last = await stream.stop();
  await until(() => it.heard.at(-1) === last, 'the last');
  const fresh = it.heard.slice(1);
  assert.deepEqual(fresh, fresh.map((_, i) => fresh[0] + i), 'each once, and in order');
});

test('a loop that is slower than its channel has the channel wait in history, and gets everything', async () => {
  const it = await listener(cluster.url, {}, { bufferMax: 4 });
  const loop = it.room[Symbol.asyncIterator]();
  const publisher = client();
  for (let n = 1; n <= 40; n += 1) await publisher.publish(channel, n);
  await until(() => it.room.state === 'paused', 'the pause');
  const got = [];
  while (got.at(-1) !== 40) {
    const { value } = await within(loop.next(), 'the next event');
    assert.equal(value.type, 'message');
    got.push(value.data);
  }
  assert.deepEqual(got, Array.from({ length: 40 }, (_, i) => i + 1));
});

test('an own publication without echo is neither heard nor taken for a loss, over a lost connection too', async () => {
  const wire = await link();
  const it = await listener(wire.url);
  const other = client();
  await other.publish(channel, 1);
  for (const n of [2, 3, 4]) await it.room.publish(`own ${n}`, { echo: false });
  await wire.cut();
  await until(() => it.losses === 1);
  await wire.mend();
  await other.publish(channel, 2);
  await it.heardAll(2);
});

test('who is there is told by presence, and who comes and goes by joined and left', async () => {
  const it = await listener(cluster.url, {}, { presence: true });
  const told = [];
  for (const type of ['joined', 'left']) it.room.on(type, ({ member }) => told.push([type, member.session]));
  const other = await listener();
  const { session } = other.fanfare.state;
  await until(() => told.length === 1, 'joined');
  const { connections, members } = await it.room.presence();
  assert.equal(connections, 2);
  assert.ok(members.some((member) => member.session === session));
  other.close();
  await until(() => told.length === 2, 'left');
  assert.deepEqual(told, [['joined', session], ['left', session]]);
});

test('history is read in pages, and a subscription begins where an application says', async () => {
  const publisher = client();
  for (let n = 1; n <= 6; n += 1) await publisher.publish(channel, n);
  const { epoch, messages } = await publisher.history(channel, { limit: 2, reverse: true });
  assert.deepEqual(messages.map((it) => it.data), [6, 5]);
  const resumed = await listener(cluster.url, {}, { since: { epoch, offset: 3 } });
  await until(() => resumed.heard.length === 3);
  assert.deepEqual(resumed.heard, [4, 5, 6]);
  const rewound = await listener(cluster.url, {}, { rewind: 2 });
  await until(() => rewound.heard.length === 2);
  assert.deepEqual([rewound.heard, rewound.gaps], [[5, 6], []]);
});
