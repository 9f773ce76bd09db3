/** The SDK of Centrifugo against three nodes behind nginx with Redis, one of which is killed. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Clients, Heard, WAYS, api, bounded, call, cluster, said, saying, subscribed, until } from './support.mjs';

const SCRIPT = new URL('../../../scripts/cluster', import.meta.url).pathname;
const order = async (...words) => promisify(execFile)(SCRIPT, words);
const urls = process.env;
const LONG = 'what is the same in all of them, and is said once';

for (const [name, way] of Object.entries(WAYS)) {
  test(`a client recovers what it missed while its node was killed (${name})`, async () => {
    const clients = new Clients();
    try {
      const ann = await clients.connected(urls.CLUSTER_URL, { maxReconnectDelay: 1000, minReconnectDelay: 500 }, way);
      const channel = `room:${name.replaceAll(' ', '-')}`;
      const subscription = await subscribed(ann, channel);
      const heard = new Heard(subscription, 'publication');
      // The same as differences, each of which needs the one before.
      const long = `room:differences-${channel.slice(5)}`;
      const differences = new Heard(await subscribed(ann, long, { delta: 'fossil' }), 'publication');
      const again = new Heard(subscription, 'subscribed');
      const gone = new Heard(ann, 'connecting');
      const victim = /^node-(\d)$/.exec(ann._node)[1];
      const survivor = victim === '1' ? '2' : '1';
      let published = 0;
      const publish = async () => {
        const node = urls[`CLUSTER_NODE_${survivor}_INTERNAL`];
        await api(node, 'publish', { channel, data: ++published });
        await api(node, 'publish', { channel: long, data: { n: published, text: LONG } });
      };
      for (let n = 0; n < 20; n++) await publish();
      await order('kill-node', victim);
      await gone.first();
      // It is away for half a second at least: these are missed.
      for (let n = 0; n < 20; n++) await publish();
      const { wasRecovering, recovered } = await again.first();
      assert.deepEqual([wasRecovering, recovered], [true, true]);
      for (let n = 0; n < 20; n++) await publish();
      await heard.first((it) => said(it.data) === published);
      assert.deepEqual(heard.all.map((it) => said(it.data)), [...Array(published).keys()].map((n) => n + 1));
      assert.deepEqual(heard.all.map((it) => it.offset), [...Array(published).keys()].map((n) => n + 1));
      await differences.first((it) => said(it.data).n === published);
      assert.deepEqual(differences.all.map((it) => said(it.data)), [...Array(published).keys()].map((n) => ({ n: n + 1, text: LONG })));
      assert.notEqual(ann._node, `node-${victim}`);
      await order('restart-node', victim);
    } finally {
      clients.close();
    }
  });
}

test('two clients on two nodes hear each other', async () => {
  const clients = new Clients();
  try {
    const [ann, bob] = await Promise.all([
      clients.connected(urls.CLUSTER_NODE_1_URL),
      clients.connected(urls.CLUSTER_NODE_3_URL, {}, WAYS.Protobuf),
    ]);
    const heard = new Heard(await subscribed(bob, 'room:both'), 'publication');
    const room = await subscribed(ann, 'room:both');
    await bounded(room.publish({ over: 'Redis' }), 'published');
    assert.deepEqual(said((await heard.first()).data), { over: 'Redis' });
  } finally {
    clients.close();
  }
});

test('what is posted to one node is said on the node that holds the stream, and in its order', async () => {
  const clients = new Clients();
  try {
    for (const [name, way] of Object.entries(WAYS).filter(([, { transport }]) => transport)) {
      const ann = await clients.connected(urls.CLUSTER_NODE_1_URL, { emulation: urls.CLUSTER_NODE_2_URL }, way);
      const bob = await clients.connected(urls.CLUSTER_NODE_3_URL);
      assert.equal(ann._node, 'node-1');
      const channel = `room:posted-${name.replaceAll(' ', '-')}`;
      const heard = new Heard(await subscribed(bob, channel), 'publication');
      const room = await subscribed(ann, channel);
      for (let n = 1; n <= 10; n++) await bounded(room.publish(saying(ann, n)), 'published');
      await heard.count(10);
      assert.deepEqual(heard.all.map((it) => said(it.data)), [...Array(10).keys()].map((n) => n + 1), name);
    }
  } finally {
    clients.close();
  }
});

test('what is posted for a session that nobody holds is refused, whichever node it names', async () => {
  const session = '0123456789abcdef0123456789abcdef';
  const post = (body, headers = { 'Content-Type': 'application/json' }) =>
    fetch(`${urls.CLUSTER_NODE_1_URL}/emulation`, { method: 'POST', headers, body });
  const statuses = {};
  for (const node of ['node-1', 'node-2', 'node-9']) {
    statuses[node] = (await post(JSON.stringify({ session, node, data: '{}' }))).status;
  }
  assert.deepEqual(statuses, { 'node-1': 404, 'node-2': 404, 'node-9': 503 });
  assert.equal((await post('{"session":1}')).status, 400);
  assert.equal((await post(new Uint8Array([10, 200]), { 'Content-Type': 'application/octet-stream' })).status, 400);
  const tooMuch = JSON.stringify({ session, node: 'node-1', data: 'x'.repeat(70_000) });
  assert.equal((await post(tooMuch)).status, 413);
});

test('what a backend says by one node holds for the clients of all', async () => {
  const clients = new Clients();
  try {
    const nodes = [1, 2, 3].map((n) => [urls[`CLUSTER_NODE_${n}_URL`], urls[`CLUSTER_NODE_${n}_INTERNAL`]]);
    const internal = nodes[1][1];
    const token = () => cluster.token('everywhere');
    const ways = [WAYS.JSON, WAYS['JSON by SSE'], WAYS['Protobuf by HTTP streaming']];
    const all = await Promise.all(nodes.map(([url], at) => clients.connected(url, { token: token() }, ways[at])));
    const user = 'everywhere';
    await until('every node tells what it holds', async () => {
      const { nodes: told } = await call(internal, 'info', {});
      return told.map((it) => it.name).sort().join() === 'node-1,node-2,node-3' && told.every((it) => it.num_clients >= 1);
    });
    await until('all connections are known', async () => Object.keys((await call(internal, 'connections', { user })).connections ?? {}).length === 3);
    const entered = all.map((client) => new Heard(client, 'subscribed'));
    const left = all.map((client) => new Heard(client, 'unsubscribed'));
    const heard = all.map((client) => new Heard(client, 'publication'));
    await call(internal, 'subscribe', { user, channel: 'room:everywhere', data: { by: 'node-2' } });
    for (const it of entered) {
      assert.deepEqual(said((await it.first(({ channel }) => channel === 'room:everywhere')).data), { by: 'node-2' });
    }
    await call(internal, 'publish', { channel: 'room:everywhere', data: 1 });
    for (const it of heard) assert.equal(said((await it.first()).data), 1);
    // Who speaks by posts is meant by its session, wherever that is held.
    assert.match(all[1]._session, /^[0-9a-f]{32}$/);
    await call(nodes[2][1], 'unsubscribe', { user, session: all[1]._session, channel: 'room:everywhere' });
    await left[1].first();
    await call(internal, 'unsubscribe', { user, channel: 'room:everywhere' });
    for (const it of left) await it.first();
    const gone = all.map((client) => new Heard(client, 'connecting'));
    await call(internal, 'refresh', { user, expired: true });
    for (const it of gone) assert.equal((await it.first()).code, 3005);
    await Promise.all(all.map((client) => bounded(client.ready(), 'back')));
    const out = all.map((client) => new Heard(client, 'disconnected'));
    await call(internal, 'disconnect', { user });
    for (const it of out) assert.equal((await it.first()).code, 3503);
  } finally {
    clients.close();
  }
});
