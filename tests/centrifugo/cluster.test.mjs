/** The SDK of Centrifugo against three nodes behind nginx with Redis, one of which is killed. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { Clients, FORMATS, Heard, api, bounded, said, subscribed } from './support.mjs';

const PROGRAM = process.env.FANFARE_BIN ?? new URL('../../target/debug/fanfare', import.meta.url).pathname;
const SCRIPT = new URL('../../scripts/cluster', import.meta.url).pathname;

let env;
const cluster = async (...words) => promisify(execFile)(SCRIPT, words, { env });
let urls = {};

before(async () => {
  env = { ...process.env, CLUSTER_DIR: await mkdtemp(join(tmpdir(), 'fanfare-centrifugo-')) };
  await cluster('up', '--binary', PROGRAM, '--no-prometheus', '--drain', '1');
  const { stdout } = await cluster('env');
  urls = Object.fromEntries(stdout.trim().split('\n').map((line) => line.split('=')));
});

after(async () => {
  await cluster('down');
  await rm(env.CLUSTER_DIR, { recursive: true });
});

for (const [format, Class] of Object.entries(FORMATS)) {
  test(`a client recovers what it missed while its node was killed (${format})`, async () => {
    const clients = new Clients();
    try {
      const ann = await clients.connected(urls.CLUSTER_URL, { maxReconnectDelay: 1000, minReconnectDelay: 500 }, Class);
      const channel = `room:${format}`;
      const subscription = await subscribed(ann, channel);
      const heard = new Heard(subscription, 'publication');
      const again = new Heard(subscription, 'subscribed');
      const gone = new Heard(ann, 'connecting');
      const victim = /^node-(\d)$/.exec(ann._node)[1];
      const survivor = victim === '1' ? '2' : '1';
      let published = 0;
      const publish = async () => api(urls[`CLUSTER_NODE_${survivor}_INTERNAL`], 'publish', { channel, data: ++published });
      for (let n = 0; n < 20; n++) await publish();
      await cluster('kill-node', victim);
      await gone.first();
      // It is away for half a second at least: these are missed.
      for (let n = 0; n < 20; n++) await publish();
      const { wasRecovering, recovered } = await again.first();
      assert.deepEqual([wasRecovering, recovered], [true, true]);
      for (let n = 0; n < 20; n++) await publish();
      await heard.first((it) => said(it.data) === published);
      assert.deepEqual(heard.all.map((it) => said(it.data)), [...Array(published).keys()].map((n) => n + 1));
      assert.deepEqual(heard.all.map((it) => it.offset), [...Array(published).keys()].map((n) => n + 1));
      assert.notEqual(ann._node, `node-${victim}`);
      await cluster('restart-node', victim);
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
      clients.connected(urls.CLUSTER_NODE_3_URL, {}, FORMATS.Protobuf),
    ]);
    const heard = new Heard(await subscribed(bob, 'room:both'), 'publication');
    const room = await subscribed(ann, 'room:both');
    await bounded(room.publish({ over: 'Redis' }), 'published');
    assert.deepEqual(said((await heard.first()).data), { over: 'Redis' });
  } finally {
    clients.close();
  }
});
