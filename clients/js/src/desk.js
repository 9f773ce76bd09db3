/**
 * Commands on their way: from being asked for, over connections that come and go, until they are answered.
 *
 * ```text
 *            flush                      answer
 *  waiting ────────► sent ────────────────────────────► done
 *     ▲               │ the connection is lost, or an error that time heals
 *     └───────────────┘ (what may be said twice; the rest fails, and says that it is uncertain)
 * ```
 *
 * Invariants:
 * - No more than `queueMax` commands wait or are under way, and each for no longer than its time.
 * - Commands of one lane go one at a time, in the order in which they were asked for: what has to be said again is not overtaken.
 * - All commands of one turn of the event loop go in one frame, as far as the server takes that.
 */

import { FanfareError } from './error.js';
import { now } from './backoff.js';

/** The server takes 128 unless it is configured otherwise. */
const BATCH_MAX = 64;
const BUFFER_LOOK_MS = 20;
/** What the server's rate leaves for the WebSocket's own pongs and for clocks that disagree. */
const RATE_SHARE = 0.9;
const RETRY_MS = 1000;
/** Errors that time heals. Whoever is told 4429 was not heard; of 4503 that is not certain. */
const RATE_LIMITED = 4429;
const UNAVAILABLE = 4503;

const utf8 = new TextEncoder();

export class Desk {
  /** Set while a connection is there to take commands. */
  #link;
  #limits = {};
  #allowance = 0;
  #allowanceAt = 0;

  #waiting = [];
  #sent = new Map();
  /** Refused for the moment, each with a timer. */
  #resting = new Set();
  #id = 0;
  #isDue = false;
  /** Why nobody is answered any more. */
  #over;
  #alarms;
  #options;

  constructor(options, alarms) {
    this.#options = options;
    this.#alarms = alarms;
  }

  /**
   * `then(error, answer)` is called once, in the turn in which the answer is heard; `repeat` says that the command may be said
   * twice, `once` that it belongs to this connection and is forgotten with it.
   */
  ask(command, then, { repeat = false, once = false, lane, timeoutMs = this.#options.timeoutMs } = {}) {
    const id = ++this.#id;
    if (this.#over) {
      then(new FanfareError(this.#over));
      return id;
    }
    const entry = { id, text: JSON.stringify({ ...command, id }), then, repeat, once, lane, wasSent: false };
    if (!once) {
      if (this.#waiting.length + this.#sent.size + this.#resting.size >= this.#options.queueMax) {
        then(new FanfareError({ reason: 'queue_full', channel: command.channel }));
        return id;
      }
      entry.timer = setTimeout(() => this.#fail(entry, { reason: 'timeout', channel: command.channel }), timeoutMs);
    }
    this.#waiting.push(entry);
    this.#flushSoon();
    return id;
  }

  open(link, limits = {}) {
    this.#link = link;
    this.#limits = limits;
    this.#allowance = this.#rate();
    this.#allowanceAt = now();
    this.#flushSoon();
  }

  /** True when the event was an answer to somebody. */
  settle(event) {
    const entry = this.#sent.get(event.id);
    if (!entry) return false;
    this.#sent.delete(entry.id);
    const { code } = event;
    const isCertain = code !== UNAVAILABLE;
    if (event.type !== 'error') {
      this.#done(entry, undefined, event);
    } else if (code === RATE_LIMITED || (code === UNAVAILABLE && (entry.repeat || entry.once))) {
      const restMs = (event.retry_after ?? RETRY_MS) * (1 + Math.random() / 4);
      this.#resting.add(entry);
      entry.rest = setTimeout(() => {
        this.#resting.delete(entry);
        this.#waiting.unshift(entry);
        this.#flushSoon();
      }, restMs);
    } else {
      this.#done(entry, new FanfareError(event, !isCertain));
    }
    this.#flushSoon();
    return true;
  }

  /** The connection is gone: what was under way is said again on the next, first and in order, where that does no harm. */
  lost() {
    this.#link = undefined;
    const again = [];
    for (const entry of this.#sent.values()) {
      if (entry.repeat) again.push(entry);
      else if (!entry.once) this.#fail(entry, { reason: 'disconnected' });
    }
    this.#sent.clear();
    for (const entry of this.#resting) if (entry.once) this.#forget(entry);
    this.#waiting = [...again, ...this.#waiting.filter((entry) => !entry.once)];
  }

  reopen() {
    this.#over = undefined;
  }

  /** Nobody will be answered any more. */
  close(error) {
    this.#over = error;
    this.lost();
    for (const entry of [...this.#waiting, ...this.#resting]) this.#fail(entry, error);
  }

  #fail(entry, error) {
    this.#done(entry, new FanfareError(error, entry.wasSent));
    this.#flushSoon();
  }

  #done(entry, error, answer) {
    this.#forget(entry);
    entry.then(error, answer);
  }

  #forget(entry) {
    clearTimeout(entry.timer);
    clearTimeout(entry.rest);
    this.#resting.delete(entry);
    this.#sent.delete(entry.id);
    const at = this.#waiting.indexOf(entry);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  /** In a microtask: whatever the application asks for in one go goes in one frame. */
  #flushSoon() {
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      while (this.#flush());
    });
  }

  /** Sends one frame; true when there may be more to send at once. */
  #flush() {
    if (!this.#link || this.#waiting.length === 0) return false;
    if (this.#link.bufferedBytes > this.#options.bufferedBytesMax) return this.#later(BUFFER_LOOK_MS);
    const allowed = this.#allowed();
    if (allowed < 1) return this.#later(1000 / this.#rate());
    const batch = this.#batch(Math.min(BATCH_MAX, allowed));
    if (batch.length === 0) return false;
    this.#allowance -= batch.length;
    this.#link.send(batch.length === 1 ? batch[0].text : `[${batch.map((entry) => entry.text).join(',')}]`);
    return true;
  }

  #later(ms) {
    this.#alarms.set('flush', ms, () => this.#flushSoon());
    return false;
  }

  /** Takes what may go now out of what waits. */
  #batch(count) {
    const bytesMax = this.#limits.message_bytes ?? Infinity;
    const busy = new Set([...this.#sent.values(), ...this.#resting].map((entry) => entry.lane));
    const batch = [];
    const left = [];
    let bytes = 2;
    let isFull = false;
    for (const entry of this.#waiting.splice(0)) {
      const length = (entry.bytes ??= utf8.encode(entry.text).length);
      if (length > bytesMax) {
        // The server would hang up on it, with 1009.
        this.#done(entry, new FanfareError({ code: 4413, reason: 'too_large', message: `over ${bytesMax} bytes` }));
        continue;
      }
      isFull ||= batch.length >= count || bytes + length + 1 > bytesMax && batch.length > 0;
      if (isFull || (entry.lane !== undefined && busy.has(entry.lane))) {
        left.push(entry);
        if (entry.lane !== undefined) busy.add(entry.lane);
        continue;
      }
      batch.push(entry);
      busy.add(entry.lane);
      bytes += length + 1;
      entry.wasSent = true;
      this.#sent.set(entry.id, entry);
    }
    this.#waiting = left.concat(this.#waiting);
    return batch;
  }

  #rate() {
    return (this.#limits.messages_per_second || Infinity) * RATE_SHARE;
  }

  #allowed() {
    const rate = this.#rate();
    if (rate === Infinity) return Infinity;
    this.#allowance = Math.min(rate, this.#allowance + ((now() - this.#allowanceAt) * rate) / 1000);
    this.#allowanceAt = now();
    return Math.floor(this.#allowance);
  }
}
