/**
 * Whoever publishes, by whatever SDK, library or API, everybody hears, by whatever SDK and transport: on one channel of the application
 * 4711 of Pusher's. The libraries for Python are in a program of their own, voices.py.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, test } from 'node:test';
import { createInterface } from 'node:readline';
import { EventSource } from 'eventsource';
import Echo from 'laravel-echo';
import Backend from 'pusher';
import PusherClient from 'pusher-js';
import WebSocket from 'ws';
import { Clients, WAYS, bounded, cluster, said, saying, subscribed } from '../centrifugo/support.mjs';

const { CLUSTER_URL, CLUSTER_NODE_1_URL, CLUSTER_NODE_1_INTERNAL, CLUSTER_NODE_2_INTERNAL, CLUSTER_NODE_3_INTERNAL } = process.env;
const CHANNEL = '4711:crossing';

/** Somebody who may publish where clients of the application may not. */
const token = cluster.token('ann', { allow: [{ channels: ['4711:*'], can: ['subscribe', 'publish'] }] });

const { hostname: wsHost, port: wsPort } = new URL(CLUSTER_URL);
const place = { cluster: 'none', wsHost, wsPort: Number(wsPort), forceTLS: false, enabledTransports: ['ws'], enableStats: false };

const clients = new Clients();
const toClose = [];
after(() => {
  clients.close();
  toClose.forEach((close) => close());
});

/** Waits for a number of things, and fails when there are more. */
class Ear {
  all = [];
  #wake = () => {};

  hear(value) {
    this.all.push(value);
    this.#wake();
  }

  async count(count, what) {
    await bounded((async () => {
      while (this.all.length < count) await new Promise((resolve) => { this.#wake = resolve; });
    })(), what);
  }
}

/** Everybody who hears, by what they hear with. */
const ears = {};

/** A native client, subscribed. */
async function native(url, ear) {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, ['fanfare.v1.json', `bearer.${token}`]);
  toClose.push(() => socket.close());
  await bounded(new Promise((resolve) => {
    socket.on('message', (text) => {
      const event = JSON.parse(text);
      if (event.type === 'welcome') socket.send(JSON.stringify({ type: 'subscribe', id: 1, channel: CHANNEL }));
      if (event.type === 'subscribed') resolve();
      if (event.type === 'message') ear.hear(event.data);
    });
  }), 'the native client is subscribed');
  return socket;
}

async function post(url, body, headers = {}) {
  const answer = await fetch(url, { method: 'POST', body: JSON.stringify(body), headers });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}

/** The libraries for Python: they tell what they hear, a line each, and publish what they are told to. */
async function python() {
  const voices = spawn(process.env.FANFARE_PYTHON, [new URL('voices.py', import.meta.url).pathname, CHANNEL, token], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  toClose.push(() => voices.stdin.end());
  await bounded(new Promise((resolve, reject) => {
    voices.on('exit', (code) => reject(new Error(`voices.py has ended: ${code}`)));
    createInterface({ input: voices.stdout }).on('line', (line) => {
      const { ears: names, ear, data } = JSON.parse(line);
      names?.forEach((name) => { ears[name] = new Ear(); });
      if (names) resolve();
      else ears[ear].hear(data);
    });
  }), 'the libraries for Python are subscribed');
  return (by, data) => voices.stdin.write(`${JSON.stringify({ by, data })}\n`);
}

let speaker;
let voices;
let anns = {};

before(async () => {
  for (const [name, way] of Object.entries(WAYS)) {
    ears[`centrifuge, ${name}`] = new Ear();
    const client = await clients.connected(CLUSTER_URL, { token }, way);
    const subscription = await subscribed(client, CHANNEL);
    subscription.on('publication', ({ data }) => ears[`centrifuge, ${name}`].hear(said(data)));
    anns[name] = { client, subscription };
  }
  ears['the native client'] = new Ear();
  speaker = await native(CLUSTER_NODE_1_URL, ears['the native client']);
  ears['native SSE'] = new Ear();
  const source = new EventSource(`${CLUSTER_URL}/sse?channel=${encodeURIComponent(CHANNEL)}`);
  toClose.push(() => source.close());
  await bounded(new Promise((resolve) => {
    source.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === 'subscribed') resolve();
      if (event.type === 'message') ears['native SSE'].hear(event.data);
    };
  }), 'the stream of events is subscribed');
  ears['pusher-js'] = new Ear();
  const pusher = new PusherClient('shop-key', place);
  toClose.push(() => pusher.disconnect());
  const crossing = pusher.subscribe('crossing');
  crossing.bind('message', (data) => ears['pusher-js'].hear(data));
  await bounded(new Promise((resolve) => { crossing.bind('pusher:subscription_succeeded', resolve); }), 'pusher-js is subscribed');
  ears['Laravel Echo'] = new Ear();
  const client = new PusherClient('shop-key', place);
  toClose.push(() => client.disconnect());
  const echo = new Echo({ broadcaster: 'pusher', key: 'shop-key', Pusher: PusherClient, client });
  const listening = echo.channel('crossing').listen('.message', (data) => ears['Laravel Echo'].hear(data));
  await bounded(new Promise((resolve) => { listening.subscribed(resolve); }), 'Laravel Echo is subscribed');
  voices = await python();
});

test('whoever publishes is heard by everybody, once and in order', async () => {
  const { hostname: host, port } = new URL(CLUSTER_NODE_2_INTERNAL);
  const backend = new Backend({ appId: '4711', key: 'shop-key', secret: 'shop-secret', host, port, useTLS: false });
  const publishers = {
    'the HTTP library of Pusher': (data) => backend.trigger('crossing', 'message', data),
    'the native client': async (data) => speaker.send(JSON.stringify({ type: 'publish', id: 2, channel: CHANNEL, data })),
    'the server API': (data) => post(`${CLUSTER_NODE_3_INTERNAL}/api/publish`, { channel: CHANNEL, data }),
    'the HTTP API of Centrifugo': (data) => post(`${CLUSTER_NODE_1_INTERNAL}/api/publish`, { channel: CHANNEL, data }, { 'X-API-Key': 'any' }),
  };
  for (const name of ['the HTTP library of Pusher for Python', 'centrifuge-python, json', 'centrifuge-python, protobuf']) {
    publishers[name] = async (data) => voices(name, data);
  }
  for (const [name, { client, subscription }] of Object.entries(anns)) {
    publishers[`centrifuge, ${name}`] = (data) => subscription.publish(saying(client, data));
  }
  const expected = [];
  for (const by of Object.keys(publishers)) {
    for (const n of [1, 2, 3]) {
      expected.push({ by, n });
      await bounded(publishers[by]({ by, n }), `published by ${by}`);
      // Publishers on different nodes are in one order only when each waits for the one before.
      for (const [name, ear] of Object.entries(ears)) await ear.count(expected.length, `${name} hears ${by}`);
    }
  }
  for (const [name, ear] of Object.entries(ears)) assert.deepEqual(ear.all, expected, name);
});

test('what a client of the application says on a private channel those hear whom a token lets in, and the other way round', async () => {
  const { hostname: host, port } = new URL(CLUSTER_NODE_2_INTERNAL);
  const backend = new Backend({ appId: '4711', key: 'shop-key', secret: 'shop-secret', host, port, useTLS: false });
  const customHandler = ({ socketId, channelName }, done) => done(null, backend.authorizeChannel(socketId, channelName));
  const pusher = new PusherClient('shop-key', { ...place, channelAuthorization: { customHandler } });
  toClose.push(() => pusher.disconnect());
  const inside = pusher.subscribe('private-crossing');
  const byPusher = new Ear();
  inside.bind('message', (data) => byPusher.hear(data));
  await bounded(new Promise((resolve) => { inside.bind('pusher:subscription_succeeded', resolve); }), 'pusher-js is subscribed');
  const [others, rooms] = [[], []];
  for (const { client } of Object.values(anns)) {
    const ear = new Ear();
    const subscription = await subscribed(client, '4711:private-crossing');
    subscription.on('publication', ({ data }) => ear.hear(said(data)));
    others.push(ear);
    rooms.push([client, subscription]);
  }
  inside.trigger('client-typing', { by: 'pusher-js' });
  for (const ear of others) await ear.count(1, 'a client event is heard');
  const [client, room] = rooms[0];
  await bounded(room.publish(saying(client, { by: 'centrifuge' })), 'published');
  await byPusher.count(1, 'pusher-js hears it');
  for (const ear of others) await ear.count(2, 'all hear it');
  assert.deepEqual(byPusher.all, [{ by: 'centrifuge' }]);
  for (const ear of others) assert.deepEqual(ear.all, [{ by: 'pusher-js' }, { by: 'centrifuge' }]);
});
