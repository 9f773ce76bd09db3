/** Clients by the SDK as it is published, and words for what they hear. */

import assert from 'node:assert/strict';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { Centrifuge } from 'centrifuge';
import { Centrifuge as CentrifugeProtobuf } from 'centrifuge/build/protobuf';
import { signed as signedBy } from '../../browser/support/gateway.mjs';

/** The bound of every wait: far more than anything here takes. */
const WAIT_MS = 30_000;

/** The ways in which the SDK speaks: the format, by the class that speaks it, and the transport where it is no WebSocket. */
export const WAYS = {
  JSON: { Class: Centrifuge },
  Protobuf: { Class: CentrifugeProtobuf },
  'JSON by SSE': { Class: Centrifuge, transport: 'sse' },
  'JSON by HTTP streaming': { Class: Centrifuge, transport: 'http_stream' },
  'Protobuf by HTTP streaming': { Class: CentrifugeProtobuf, transport: 'http_stream' },
};

/** What a publication says, whatever format it came in. */
export const said = (data) => (data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data);

/** What to hand to the SDK so that it says this. */
export const saying = (client, value) => (client instanceof CentrifugeProtobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);

/** Clients of one test, which end with it. */
export class Clients {
  #open = [];

  /** One of a way; `emulation` is where it posts what it says, where that is not where it hears. */
  client(url, { emulation = url, ...options } = {}, { Class, transport } = WAYS.JSON) {
    const endpoint = transport
      ? [{ transport, endpoint: `${url}/connection/${transport}` }]
      : `${url.replace(/^http/, 'ws')}/connection/websocket`;
    const parts = { websocket: WebSocket, eventsource: EventSource, fetch, readableStream: ReadableStream };
    const emulationEndpoint = `${emulation}/emulation`;
    const client = new Class(endpoint, { ...parts, emulationEndpoint, minReconnectDelay: 20, maxReconnectDelay: 200, ...options });
    this.#open.push(client);
    return client;
  }

  async connected(url, options, way) {
    const client = this.client(url, options, way);
    client.connect();
    await bounded(client.ready(), 'connected');
    return client;
  }

  close() {
    this.#open.forEach((client) => client.disconnect());
  }
}

export async function subscribed(client, channel, options) {
  const subscription = client.newSubscription(channel, options);
  subscription.subscribe();
  await bounded(subscription.ready(), `subscribed to ${channel}`);
  return subscription;
}

/** Everything that an emitter says under this name from now on, to be waited for. */
export class Heard {
  all = [];
  #waiting = [];

  constructor(emitter, name) {
    emitter.on(name, (event) => {
      this.all.push(event);
      this.#waiting = this.#waiting.filter((look) => !look());
    });
    this.name = name;
  }

  /** The first that is so; waits for it. */
  async first(is = () => true) {
    return bounded(new Promise((resolve) => {
      const look = () => {
        const found = this.all.find(is);
        if (found !== undefined) resolve(found);
        return found !== undefined;
      };
      if (!look()) this.#waiting.push(look);
    }), this.name);
  }

  /** Waits until there are so many. */
  async count(count) {
    return this.first(() => this.all.length >= count);
  }
}

export async function bounded(promise, what) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`waited in vain: ${what}`)), WAIT_MS); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The code of the error that a call of the SDK ends with. */
export async function refusal(promise) {
  return promise.then(() => assert.fail('it was granted'), (error) => error.code);
}

/** A call of the HTTP API of Centrifugo: its result, or its error. */
export async function call(internal, method, body) {
  const headers = { 'X-API-Key': 'any, where there are none' };
  const answer = await fetch(`${internal}/api/${method}`, { method: 'POST', headers, body: JSON.stringify(body) });
  assert.equal(answer.status, 200);
  const { result, error } = await answer.json();
  return result ?? { error };
}

/** Waits until this is so. */
export async function until(what, is) {
  const look = async () => { while (!(await is())) await new Promise((resolve) => setTimeout(resolve, 20)); };
  await bounded(look(), what);
}

/** The cluster of scripts/sdk-test: where clients connect, and one of its nodes for backends. */
export const cluster = {
  url: process.env.CLUSTER_URL,
  internal: process.env.CLUSTER_NODE_2_INTERNAL,

  /** A token of this user, good for an hour unless `claims` say otherwise. */
  token(user, claims = {}) {
    return signed({ sub: user, exp: Math.floor(Date.now() / 1000) + 3600, ...claims });
  },
};

/** A token with these claims. */
export const signed = (claims) => signedBy(process.env.FANFARE__AUTH__JWT__HMAC_SECRET, claims);

/** A call of the server API. */
export async function api(internal, method, body) {
  const answer = await fetch(`${internal}/api/${method}`, { method: 'POST', body: JSON.stringify(body) });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}
