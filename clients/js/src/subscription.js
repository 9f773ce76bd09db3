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
/** Own publications without echo that are remembered, the newest. */
const OWN_MAX = 1024;

export class Subscription extends Emitter {
  channel;
  state = 'subscribing';
  position;

  /** The id of the command that will be answered by `subscribed`; undefined for the server's own subscriptions. */
  _expects;

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
    this.#client._leave(this);
  }

  /** The command that enters the channel where this one stands. */
  get _command() {
    const { channel, position } = this;
    const { rewind, presence } = this.#options;
    return { type: 'subscribe', channel, since: position, rewind: position ? undefined : rewind, presence };
  }

  /** Whether the server's own subscription is not good enough. */
  get _isWanting() {
    return this.position || this.#options.rewind || this.#options.presence;
  }

  _entered(event) {
    if (this.state !== 'subscribed' && (this.state !== 'subscribing' || event.id !== this._expects)) return;
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
    if (!isReplayed) this.position = epoch && { epoch, offset: offset - rewound };
    const isGap = epoch ? asked && !recovered : wasLive;
    // A response that ended was only asked for anew.
    if (!isNews && !isGap) return;
    this._emit('subscribed', { channel, epoch, offset, recovered: Boolean(asked && recovered) });
    if (isGap) {
      this._emit('gap', { type: 'gap', channel, cause: epoch ? 'lost' : 'no_history', position: this.position });
    }
  }

  /** A message, or who joined or left. */
  _heard(event) {
    if (this.state !== 'subscribed') return;
    if (event.offset && this.#epoch) {
      const { epoch, offset } = this.position;
      if (epoch === this.#epoch && event.offset <= offset) return;
      this.position = { epoch: this.#epoch, offset: event.offset };
      if (this.#own.delete(event.offset)) return;
      event.epoch = this.#epoch;
    }
    this._emit(event.type, event);
  }

  /** An own publication without echo: should it come after all, replayed to another connection, it is no news. */
  _published({ epoch, offset }) {
    if (epoch === this.#epoch) this.#own.add(offset);
    if (this.#own.size > OWN_MAX) this.#own.delete(this.#own.values().next().value);
  }

  _interrupted({ code, reason }) {
    const wasLive = this.state === 'subscribed';
    if (this.state !== 'paused') this.state = 'subscribing';
    this._expects = undefined;
    if (wasLive) this._emit('interrupted', { channel: this.channel, code, reason });
  }

  /** For good: by the application (no code), or because the server does not let it. */
  _ended(event = {}) {
    this.state = 'unsubscribed';
    const { code, reason, message } = event;
    this._emit('unsubscribed', { channel: this.channel, code, reason, message });
  }

  /**
   * Messages, gaps, and who joins and leaves, in order. At most `bufferMax` wait for the loop. On a channel with history a loop that is
   * slower has the channel left, and entered again where it was left when there is room; on one without, the oldest give way, and a gap
   * says so.
   */
  [Symbol.asyncIterator]() {
    const events = [];
    const { bufferMax = 1024 } = this.#options;
    let wake = () => {};
    let end;
    const take = (event) => {
      events.push(event);
      if (this.position) {
        if (events.length >= bufferMax) this.#pause(events);
      } else if (events.length > bufferMax) {
        const [{ missed = 1 }] = events.splice(0, 2);
        events.unshift({ type: 'gap', channel: this.channel, cause: 'overflow', missed: missed + 1 });
      }
      wake();
    };
    const offs = ITERATED.map((type) => this.on(type, take));
    const stop = (event) => {
      end ??= event;
      for (const off of offs) off();
      this.#room(events);
      wake();
    };
    offs.push(this.on('unsubscribed', stop));
    if (this.state === 'unsubscribed') stop({});
    return async function* iterate() {
      try {
        for (;;) {
          while (events.length) {
            const event = events.shift();
            if (events.length <= bufferMax / 2) this.#room(events);
            yield event;
          }
          if (end?.code) throw new FanfareError(end);
          if (end) return;
          await new Promise((resolve) => { wake = resolve; });
        }
      } finally {
        stop({});
      }
    }.call(this);
  }

  #pause(iteration) {
    this.#full.add(iteration);
    if (this.state !== 'subscribed') return;
    this.state = 'paused';
    this.#client._pause(this);
  }

  #room(iteration) {
    if (!this.#full.delete(iteration) || this.#full.size > 0 || this.state !== 'paused') return;
    this.state = 'subscribing';
    this.#client._enter(this);
  }
}
