/**
 * Hearing channels, over the node's own protocol and by one connection of the page: `/ws` of this listener, with the rights of the key.
 * It is opened by the first who wants to hear something.
 */

import { Connection, SUBPROTOCOL } from './connection.js';

const endpoint = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`;
/** The node lets a key be looked at again after a while, and says so by this. */
const UNAUTHORIZED = 4401;

/** A key may hold what a subprotocol may not. */
function spelt(key) {
  const text = String.fromCharCode(...new TextEncoder().encode(key));
  return `bearer.${btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')}`;
}

export class Live extends EventTarget {
  /** Channel → those who hear it. */
  #hearers = new Map();
  #api;
  #connection;

  constructor(api) {
    super();
    this.#api = api;
  }

  get state() {
    return this.#connection?.state ?? { name: 'stopped' };
  }

  /**
   * Has `hearer` told what is said on a channel: `message(event)`, `state(known)` whenever its standing changes, and `trouble(error)`.
   * The result ends it.
   */
  hear(channel, hearer) {
    if (!this.#hearers.has(channel)) this.#hearers.set(channel, new Set());
    this.#hearers.get(channel).add(hearer);
    this.#connection ??= this.#open();
    this.#connection.join(channel);
    this.#connection.connect();
    hearer.state(this.#connection.channels.get(channel));
    return () => {
      const hearers = this.#hearers.get(channel);
      if (!hearers?.delete(hearer) || hearers.size > 0) return;
      this.#hearers.delete(channel);
      this.#connection.leave(channel);
    };
  }

  #open() {
    const socket = (url) => new WebSocket(url, this.#api.key ? [SUBPROTOCOL, spelt(this.#api.key)] : [SUBPROTOCOL]);
    return new Connection(endpoint, {
      state: (state) => {
        this.dispatchEvent(new Event('change'));
        if (state.name === 'stopped' && state.code === UNAUTHORIZED) this.#again();
      },
      channels: () => this.#tellStates(),
      message: (event) => this.#hearers.get(event.channel)?.forEach((it) => it.message(event)),
      trouble: (error) => this.#hearers.get(error.channel)?.forEach((it) => it.trouble(error)),
      roundTrip: () => {},
    }, { socket });
  }

  /** With a key that is still good; otherwise the page asks for another. */
  async #again() {
    await this.#api.open().then(() => this.#connection.connect(), () => {});
  }

  #tellStates() {
    for (const [channel, hearers] of this.#hearers) {
      const known = this.#connection?.channels.get(channel);
      hearers.forEach((it) => it.state(known));
    }
  }
}
