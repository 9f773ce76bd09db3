/**
 * What an application has of one channel, over connections that come and go.
 *
 * ```text
 *  subscribing ──► subscribed ──► unsubscribed
 *       ▲              │   interrupted: the connection is lost, or the server lost the place (4410)
 *       └──────────────┤
 *                      └─► paused: an iteration is slower than the channel, and history waits for it
 * ```
 *
 * Invariants:
 * - A message is told in the state `subscribed` alone, and a place in a stream once.
 * - `position` is the place of the last message that was told. It names a new epoch only once nothing of the old one is missing,
 *   so a connection that is lost in the middle of a replay loses nothing.
 * - Messages that are gone are told as `gap`, between those before and after.
 */

import { Emitter } from './emitter.js';
import { FanfareError } from './error.js';

/** What an iteration gives. */
const ITERATED = ['message', 'gap', 'joined', 'left'];
/** An own publication not echoed is remembered until the stream has passed it; more than these never wait. */
const OWN_MAX = 1024;

export class Subscription extends Emitter {
  channel;
  state = 'subscribing';
  position;

  /** The id of the command that will be answered by `subscribed`; undefined for the server's own subscriptions. */
  expects;
  /** Interruptions by the server in short order. */
  strikes = 0;
  struckAt = -Infinity;

  #client;
  #options;
  #epoch;
  #wasLive = false;
  /** Offsets of own publications that are not echoed. */
  #own = new Set();
  /** Iterations that are full. */
  #full = new Set();

  constructor(client, channel, options) {
    super();
    this.#client = client;
    this.channel = channel;
    this.#options = options;
    this.position = options.since;
  }

  publish(data, options) {
    return this.#client.publish(this.channel, data, options);
  }

  history(options) {
    return this.#client.history(this.channel, options);
  }

  presence(options) {
    return this.#client.presence(this.channel, options);
  }

  unsubscribe() {
    this.#client.leave(this);
  }

  /** The command that enters the channel where this one stands. */
  get command() {
    const { rewind, presence } = this.#options;
    return {
      type: 'subscribe',
      channel: this.channel,
      ...(this.position ? { since: this.position } : rewind && { rewind }),
      ...(presence && { presence }),
    };
  }

  /** Whether the server's own subscription is not good enough. */
  get isWanting() {
    return Boolean(this.position || this.#options.rewind || this.#options.presence);
  }

  entered(event) {
    if (this.state !== 'subscribed' && (this.state !== 'subscribing' || event.id !== this.expects)) return;
    const { channel, epoch, offset, recovered } = event;
    const asked = this.position;
    const wasLive = this.#wasLive;
    this.#wasLive = true;
    const isNews = this.state !== 'subscribed';
    this.state = 'subscribed';
    if (epoch !== this.#epoch) this.#own.clear();
    this.#epoch = epoch;
    // What was missed follows, and moves the position as it comes; until then the old one is the true one.
    const isReplayed = recovered && asked && asked.offset !== offset;
    const rewound = recovered && !asked ? Math.min(this.#options.rewind, offset) : 0;
    if (!isReplayed) this.position = epoch === undefined ? undefined : { epoch, offset: offset - rewound };
    const isGap = epoch === undefined ? wasLive : asked && !recovered;
    // A response that ended was only asked for anew.
    if (!isNews && !isGap) return;
    this.emit('subscribed', { channel, epoch, offset, recovered: Boolean(asked && recovered) });
    if (isGap) {
      this.emit('gap', { type: 'gap', channel, cause: epoch === undefined ? 'no_history' : 'lost', position: this.position });
    }
  }

  heard(event) {
    if (this.state !== 'subscribed') return;
    if (event.offset !== undefined && this.#epoch !== undefined) {
      const { epoch, offset } = this.position;
      if (epoch === this.#epoch && event.offset <= offset) return;
      const isOwn = this.#own.has(event.offset);
      this.#moveTo(event.offset);
      if (isOwn) return;
      event.epoch = this.#epoch;
    }
    this.emit('message', event);
  }

  /** An own publication that this connection does not hear: its place is passed without a message. */
  published({ epoch, offset }) {
    if (epoch === undefined || epoch !== this.#epoch || epoch !== this.position?.epoch || offset <= this.position.offset) return;
    if (this.#own.size < OWN_MAX) this.#own.add(offset);
    if (this.#own.has(this.position.offset + 1)) this.#moveTo(this.position.offset);
  }

  #moveTo(offset) {
    while (this.#own.has(offset + 1)) offset += 1;
    for (const own of this.#own) if (own <= offset) this.#own.delete(own);
    this.position = { epoch: this.#epoch, offset };
  }

  interrupted({ code, reason }) {
    if (this.state === 'unsubscribed') return;
    const wasLive = this.state === 'subscribed';
    if (this.state !== 'paused') this.state = 'subscribing';
    this.expects = undefined;
    if (wasLive) this.emit('interrupted', { channel: this.channel, code, reason });
  }

  /** For good: by the application (no code), or because the server does not let it. */
  ended(event = {}) {
    if (this.state === 'unsubscribed') return;
    this.state = 'unsubscribed';
    const { code, reason, message } = event;
    this.emit('unsubscribed', { channel: this.channel, code, reason, message });
  }

  /**
   * Messages, gaps, and who joins and leaves, in order. At most `bufferMax` wait for the loop. On a channel with history a loop that is
   * slower has the channel left, and entered again where it was left when there is room; on one without, the oldest give way, and a gap
   * says so.
   */
  [Symbol.asyncIterator]() {
    const events = [];
    const bufferMax = this.#options.bufferMax ?? 1024;
    const full = {};
    let wake;
    let end;
    const settle = () => {
      wake?.();
      wake = undefined;
    };
    const stop = (error) => {
      end ??= { error };
      for (const off of offs) off();
      this.#room(full);
      settle();
    };
    const take = (event) => {
      events.push(event);
      if (events.length >= bufferMax && this.position) this.#pause(full);
      if (events.length > bufferMax && !this.position) {
        const gave = events[0].cause === 'overflow' ? events.splice(0, 2) : events.splice(0, 1);
        const missed = (gave.length > 1 ? gave[0].missed : 0) + 1;
        events.unshift({ type: 'gap', channel: this.channel, cause: 'overflow', missed });
      }
      settle();
    };
    const offs = ITERATED.map((type) => this.on(type, take));
    offs.push(this.on('unsubscribed', (event) => stop(event.code === undefined ? undefined : new FanfareError(event))));
    if (this.state === 'unsubscribed') stop();
    return {
      next: async () => {
        for (;;) {
          if (events.length > 0) {
            const value = events.shift();
            if (events.length <= bufferMax / 2) this.#room(full);
            return { value, done: false };
          }
          if (end) {
            const { error } = end;
            end = {};
            if (error) throw error;
            return { value: undefined, done: true };
          }
          await new Promise((resolve) => { wake = resolve; });
        }
      },
      return: async (value) => {
        events.length = 0;
        stop();
        return { value, done: true };
      },
      [Symbol.asyncIterator]() { return this; },
    };
  }

  #pause(iteration) {
    this.#full.add(iteration);
    if (this.state !== 'subscribed') return;
    this.state = 'paused';
    this.#client.pause(this);
  }

  #room(iteration) {
    if (!this.#full.delete(iteration) || this.#full.size > 0 || this.state !== 'paused') return;
    this.state = 'subscribing';
    this.#client.enter(this);
  }
}
