/**
 * A client of `fanfare.v1.msgpack` that survives lost connections: it comes back, subscribes since the last message that
 * it has processed, and publishes again what was not acknowledged, under the same key.
 */

import { decode, encode } from '@msgpack/msgpack';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import WebSocket from 'ws';

/** So many events may wait to be processed; then the socket is not read, and TCP slows the gateway down. */
const WAITING_MAX = 32;

const BACKOFF_MS = { first: 50, most: 2_000 };

export class Client {
  #url;
  #socket = null;
  #isClosed = false;
  #asked = 0;
  /** id → what to do with the answer; an answer that cannot come any more is null. */
  #answers = new Map();
  /** channel → { onMessage, onGap, since } */
  #subscriptions = new Map();
  #events = [];
  #isProcessing = false;

  /** What `welcome` said last. */
  welcome = null;
  /** How often the connection was lost. */
  losses = 0;

  constructor(url) {
    this.#url = url;
  }

  /** Connects, however long it takes, and again whenever the connection is lost. */
  async connect() {
    for (let backoff = BACKOFF_MS.first; !this.#isClosed; backoff = Math.min(2 * backoff, BACKOFF_MS.most)) {
      const socket = new WebSocket(this.#url, 'fanfare.v1.msgpack');
      const welcomed = new Promise((resolve) => {
        socket.once('message', (bytes) => resolve(decode(bytes)));
        socket.once('error', () => resolve(null));
        socket.once('close', () => resolve(null));
      });
      this.welcome = await welcomed;
      if (this.welcome?.type === 'welcome') {
        this.#take(socket);
        return;
      }
      socket.terminate();
      await wait(backoff * (0.5 + Math.random()));
    }
  }

  /**
   * Hears a channel. `onMessage(data)` is awaited before the next message is taken; only then is its position the one to
   * come back to. `onGap()` is called when messages are gone for good.
   */
  async subscribe(channel, onMessage, onGap = () => {}) {
    this.#subscriptions.set(channel, { onMessage, onGap, since: null });
    await this.#enter(channel);
  }

  /** Publishes once, however often that has to be tried; resolves when the broker has it. */
  async publish(channel, data, key) {
    for (;;) {
      const answer = await this.#ask({ type: 'publish', channel, data, key });
      if (answer?.type === 'published') return;
      if (answer !== null && answer.retry_after === undefined) {
        throw new Error(`${answer.code} ${answer.reason}: ${answer.message}`);
      }
      await wait(answer?.retry_after ?? BACKOFF_MS.first);
    }
  }

  async close() {
    this.#isClosed = true;
    const socket = this.#socket;
    if (socket === null || socket.readyState === WebSocket.CLOSED) return;
    socket.close(1000);
    await once(socket, 'close');
  }

  #take(socket) {
    this.#socket = socket;
    socket.on('error', () => {}); // The close that follows is what counts.
    socket.on('message', (bytes) => this.#hear(socket, decode(bytes)));
    socket.on('close', () => this.#lose(socket));
    for (const channel of this.#subscriptions.keys()) void this.#enter(channel);
  }

  #lose(socket) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    for (const answer of this.#answers.values()) answer(null);
    this.#answers.clear();
    if (this.#isClosed) return;
    this.losses += 1;
    void this.connect();
  }

  /** Answers are taken at once; everything else waits for its turn. */
  #hear(socket, event) {
    const answer = this.#answers.get(event.id);
    if (answer !== undefined && event.type !== 'subscribed') {
      this.#answers.delete(event.id);
      answer(event);
      return;
    }
    this.#events.push(event);
    if (this.#events.length >= WAITING_MAX) socket.pause();
    void this.#process();
  }

  async #process() {
    if (this.#isProcessing) return;
    this.#isProcessing = true;
    while (this.#events.length > 0) {
      await this.#perform(this.#events.shift());
      if (this.#events.length < WAITING_MAX / 2) this.#socket?.resume();
    }
    this.#isProcessing = false;
  }

  async #perform(event) {
    const subscription = this.#subscriptions.get(event.channel);
    switch (event.type) {
      case 'subscribed': {
        const isGap = subscription.since !== null && !event.recovered;
        // With `recovered` the messages that follow carry their own offsets, from the one after `since`.
        const offset = event.recovered ? subscription.since.offset : event.offset;
        subscription.since = { epoch: event.epoch, offset };
        this.#answers.get(event.id)?.(event);
        this.#answers.delete(event.id);
        if (isGap) await subscription.onGap();
        break;
      }
      case 'message':
        // What was heard just before the connection was lost and is replayed now has been processed by now.
        if (event.offset <= subscription.since.offset) break;
        await subscription.onMessage(event.data);
        subscription.since.offset = event.offset;
        break;
      case 'unsubscribed':
        void this.#enter(event.channel);
        break;
    }
  }

  async #enter(channel) {
    const { since } = this.#subscriptions.get(channel);
    const answer = await this.#ask({ type: 'subscribe', channel, ...(since === null ? {} : { since }) });
    if (answer === null || answer.type === 'subscribed') return; // Whoever connects again enters again.
    if (answer.retry_after === undefined) throw new Error(`${answer.code} ${answer.reason}: ${answer.message}`);
    await wait(answer.retry_after);
    await this.#enter(channel);
  }

  /** The answer to a command; null when the connection was lost before it came. */
  #ask(command) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.resolve(null);
    const id = ++this.#asked;
    return new Promise((resolve) => {
      this.#answers.set(id, resolve);
      this.#socket.send(encode({ ...command, id }, { ignoreUndefined: true }));
    });
  }
}
