/** Clients by the SDK as it is published, and words for what they hear. */

import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { Centrifuge } from 'centrifuge';
import { Centrifuge as CentrifugeProtobuf } from 'centrifuge/build/protobuf';

/** The bound of every wait: far more than anything here takes. */
const WAIT_MS = 30_000;

/** The formats that the SDK speaks, by the class that speaks it. */
export const FORMATS = { JSON: Centrifuge, Protobuf: CentrifugeProtobuf };

/** What a publication says, whatever format it came in. */
export const said = (data) => (data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data);

/** What to hand to the SDK so that it says this. */
export const saying = (client, value) => (client instanceof CentrifugeProtobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);

/** Clients of one test, which end with it. */
export class Clients {
  #open = [];

  client(url, options = {}, Class = Centrifuge) {
    const endpoint = `${url.replace(/^http/, 'ws')}/connection/websocket`;
    const client = new Class(endpoint, { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 200, ...options });
    this.#open.push(client);
    return client;
  }

  async connected(url, options, Class) {
    const client = this.client(url, options, Class);
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

/** A call of the server API. */
export async function api(internal, method, body) {
  const answer = await fetch(`${internal}/api/${method}`, { method: 'POST', body: JSON.stringify(body) });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}
