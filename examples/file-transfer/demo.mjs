/**
 * Sends a file through a gateway while the connections of both sides are cut, and shows that it arrives whole.
 *
 *     node demo.mjs GATEWAY [FILE]      GATEWAY such as http://127.0.0.1:8000; without FILE, 8 MiB of noise
 */

import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from './client.mjs';
import { cuttable } from './cuts.mjs';
import { receive, send } from './transfer.mjs';

const [gateway, given] = process.argv.slice(2);
const folder = await mkdtemp(join(tmpdir(), 'fanfare-files-'));
const path = given ?? join(folder, 'noise');
if (given === undefined) await writeFile(path, randomBytes(8 * 1024 * 1024));

const channel = `files:${randomUUID()}`;
const link = await cuttable(new URL(gateway));
const [sender, receiver] = [new Client(link.url), new Client(link.url)];
await Promise.all([sender.connect(), receiver.connect()]);

const began = performance.now();
let onReady;
const isReady = new Promise((resolve) => (onReady = resolve));
const onProgress = (done, all) => {
  if (done % 64 === 0) console.log(`received ${done} of ${all} chunks`);
  if (done % 100 === 0) {
    console.log('cutting both connections');
    link.cut();
  }
};
const received = receive(receiver, channel, folder, { onReady, onProgress });
await isReady;
const [sent, { path: copy, size, sha256 }] = await Promise.all([send(sender, channel, path), received]);
await Promise.all([sender.close(), receiver.close()]);
link.close();

const seconds = ((performance.now() - began) / 1000).toFixed(1);
console.log(`${size} bytes in ${sent.chunks} chunks and ${seconds} s, over ${receiver.losses + sender.losses} lost connections`);
console.log(`SHA-256 ${sha256.toString('hex')}, as it was sent: ${copy}`);
if (given === undefined) await rm(folder, { recursive: true });
