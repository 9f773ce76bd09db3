import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client } from './client.mjs';
import { cuttable } from './cuts.mjs';
import { receive, send } from './transfer.mjs';

const GATEWAY = new URL(process.env.FANFARE_URL);
/** Far longer than any of these takes; without it what hangs would hang for ever. */
const PATIENCE_MS = 60_000;
let folder;

before(async () => (folder = await mkdtemp(join(tmpdir(), 'fanfare-files-'))));
after(() => rm(folder, { recursive: true }));

/** Transfers so many bytes, each side over a link of its own, and returns what can be said about it. */
async function transfer(bytes, { onProgress = () => {} } = {}) {
  const [inbox, channel] = [await mkdtemp(join(folder, 'in-')), `files:${randomUUID()}`];
  const path = join(folder, 'original');
  await writeFile(path, randomBytes(bytes));
  const links = { sender: await cuttable(GATEWAY), receiver: await cuttable(GATEWAY) };
  const sender = new Client(links.sender.url);
  const receiver = new Client(links.receiver.url);
  try {
    await Promise.all([sender.connect(), receiver.connect()]);
    let onReady;
    const isReady = new Promise((resolve) => (onReady = resolve));
    const received = receive(receiver, channel, inbox, { onReady, onProgress: (done) => onProgress(done, links, channel) });
    await isReady;
    const [sent, { path: copy, sha256 }] = await Promise.all([send(sender, channel, path), received]);
    const original = await readFile(path);
    assert.deepEqual(await readFile(copy), original);
    assert.deepEqual(sha256, createHash('sha256').update(original).digest());
    assert.deepEqual(await readdir(inbox), ['original'], 'nothing is left over');
    const { setbacks, chunks } = sent;
    return { channel, chunks, setbacks, losses: { sender: sender.losses, receiver: receiver.losses } };
  } finally {
    await Promise.all([sender.close(), receiver.close()]);
    Object.values(links).forEach((link) => link.close());
  }
}

/** Asks the server API. */
function call(method, fields) {
  const url = new URL(`/api/${method}`, process.env.FANFARE_INTERNAL_URL);
  return fetch(url, { method: 'POST', body: JSON.stringify(fields) });
}

/** How many messages were ever published on a channel. */
async function published(channel) {
  return (await (await call('history', { channel, limit: 0 })).json()).offset;
}

test('a file of any size arrives whole', { timeout: PATIENCE_MS }, async () => {
  for (const [bytes, chunks] of [[0, 0], [1, 1], [32 * 1024, 1], [32 * 1024 + 1, 2]]) {
    assert.equal((await transfer(bytes)).chunks, chunks, `${bytes} bytes`);
  }
});

test('a transfer survives cuts of either side and of both', { timeout: PATIENCE_MS }, async () => {
  const cuts = { 5: ['receiver'], 20: ['sender'], 40: ['sender', 'receiver'], 41: ['receiver'], 70: ['sender', 'receiver'] };
  const onProgress = (done, links) => (cuts[done] ?? []).forEach((side) => links[side].cut());
  const { losses, setbacks, channel } = await transfer(80 * 32 * 1024, { onProgress });
  assert.equal(setbacks, 0, 'history had all that was missed');
  assert.equal(await published(channel), 1 + 80 + 1, 'whatever was tried again was published once');
  assert.ok(losses.sender >= 3 && losses.receiver >= 3, JSON.stringify(losses));
});

/** What history has lost, the receiver asks for again. */
test('a transfer survives the loss of history', { timeout: PATIENCE_MS }, async () => {
  let removed;
  const onProgress = (done, { receiver }, channel) => {
    if (done !== 10 || removed !== undefined) return;
    receiver.sever();
    removed = (async () => {
      while ((await published(channel)) < 20); // The sender goes on without it.
      const response = await call('history/remove', { channel });
      receiver.mend();
      return response;
    })();
  };
  const { losses, setbacks } = await transfer(60 * 32 * 1024, { onProgress });
  assert.equal((await removed).status, 200);
  assert.ok(setbacks > 0, 'the sender went back');
  assert.ok(losses.receiver > 0);
});
