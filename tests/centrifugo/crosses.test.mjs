/**
 * Whoever publishes, by whatever SDK, library or API, everybody hears, by whatever SDK and transport: one cluster of three nodes
 * behind nginx with Redis, whose application 4711 is one of Pusher's.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { EventSource } from 'eventsource';
import Backend from 'pusher';
import PusherClient from 'pusher-js';
import WebSocket from 'ws';
import { signed } from '../browser/support/gateway.mjs';
import { Clients, WAYS, bounded, said, saying, subscribed } from './support.mjs';

const { CLUSTER_URL, CLUSTER_NODE_1_URL, CLUSTER_NODE_1_INTERNAL, CLUSTER_NODE_2_INTERNAL, CLUSTER_NODE_3_INTERNAL } = process.env;
const CHANNEL = '4711:crossing';

/** Somebody who may publish where clients of the application may not. */
const token = signed(process.env.FANFARE__AUTH__JWT__HMAC_SECRET, {
  sub: 'ann',
  exp: Math.floor(Date.now() / 1000) + 3600,
  allow: [{ channels: ['4711:*'], can: ['subscribe', 'publish'] }],
});

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

let speaker;
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
  const { hostname, port } = new URL(CLUSTER_URL);
  const place = { cluster: 'none', wsHost: hostname, wsPort: Number(port), forceTLS: false, enabledTransports: ['ws'], enableStats: false };
  const pusher = new PusherClient('shop-key', place);
  toClose.push(() => pusher.disconnect());
  const crossing = pusher.subscribe('crossing');
  crossing.bind('message', (data) => ears['pusher-js'].hear(data));
  await bounded(new Promise((resolve) => { crossing.bind('pusher:subscription_succeeded', resolve); }), 'pusher-js is subscribed');
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
