/** One row of loadtest/compression: subscribers of one channel hear JSON of one size; what that cost the gateway. */

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import WebSocket from 'ws';

const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    api: { type: 'string' },
    pid: { type: 'string' },
    mode: { type: 'string' },
    bytes: { type: 'string' },
    heading: { type: 'boolean' },
    subscribers: { type: 'string', default: '500' },
    publications: { type: 'string', default: '200' },
  },
});
const bytes = Number(values.bytes);
const subscribers = Number(values.subscribers);
const publications = Number(values.publications);
const channel = `load:${bytes}`;

let seed = 42;
const random = (below) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
const WORDS = 'order filled price moved user joined the quick brown fox jumps over lazy dog hello world market closed up down'.split(' ');
const sentence = (count) => Array.from({ length: count }, () => WORDS[random(WORDS.length)]).join(' ');
const entry = () => ({ id: random(1e6), user: `user-${random(1000)}`, price: random(1e5) / 100, text: sentence(4), active: random(2) === 0 });

/** Records as applications send them, never twice the same, filled up to the size. */
function data() {
  const rows = [];
  while (JSON.stringify(rows).length < bytes - 140) rows.push(entry());
  const rest = bytes - JSON.stringify({ rows, note: '' }).length;
  return { rows, note: sentence(40).slice(0, Math.max(0, rest)) };
}

async function connect() {
  const socket = new WebSocket(values.url, ['fanfare.v1.json']);
  await once(socket, 'open');
  const subscribed = new Promise((resolve) => socket.on('message', (text) => text.includes('"subscribed"') && resolve()));
  socket.send(JSON.stringify({ type: 'subscribe', channel }));
  await subscribed;
  socket.removeAllListeners('message');
  return socket;
}

async function metric(name) {
  const text = await (await fetch(`${values.api}/metrics`)).text();
  return Number(text.match(new RegExp(`^${name} (.*)$`, 'm'))[1]);
}

/** User and system time of the gateway, in microseconds; its resident memory in bytes. */
async function usage() {
  const stat = (await readFile(`/proc/${values.pid}/stat`, 'utf8')).split(') ')[1].split(' ');
  const memory = (await readFile(`/proc/${values.pid}/status`, 'utf8')).match(/VmRSS:\s*(\d+)/)[1];
  return { cpu: (Number(stat[11]) + Number(stat[12])) * 10_000, memory: Number(memory) * 1024 };
}

const idle = await usage();
const sockets = [];
while (sockets.length < subscribers) sockets.push(await connect());
const publisher = new WebSocket(values.url, ['fanfare.v1.json']);
await once(publisher, 'open');

async function publish(count) {
  let heard = 0;
  const all = new Promise((resolve) => {
    for (const socket of sockets) {
      socket.removeAllListeners('message');
      socket.on('message', () => ++heard === count * sockets.length && resolve());
    }
  });
  for (let round = 0; round < count; round++) {
    publisher.send(JSON.stringify({ type: 'publish', channel, data: data() }));
    // As many as the clients can follow: what waits would be gathered, and gathering is not what is measured.
    while (heard < (round - 2) * sockets.length) await new Promise((resolve) => setImmediate(resolve));
  }
  await all;
}

await publish(20);
const [before, sentBefore] = [await usage(), await metric('fanfare_sent_bytes_total')];
await publish(publications);
const [after, sentAfter] = [await usage(), await metric('fanfare_sent_bytes_total')];
const delivered = publications * sockets.length;
if (values.heading) {
  console.log('| JSON | compression | bytes a message | µs of CPU a message | resident memory a connection |');
  console.log('| --- | --- | --- | --- | --- |');
}
const cells = [
  `${bytes} B`,
  values.mode,
  ((sentAfter - sentBefore) / delivered).toFixed(0),
  ((after.cpu - before.cpu) / delivered).toFixed(1),
  `${(Math.max(0, after.memory - idle.memory) / 1024 / sockets.length).toFixed(1)} KB`,
];
console.log(`| ${cells.join(' | ')} |`);
for (const socket of [...sockets, publisher]) socket.terminate();
