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
/** How soon to look again whether there is room, in the socket or in the server's rate. */
const LOOK_MS = 20;
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
  #allowance;
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
    // What has no lane is alone in one of its own.
    const entry = { id, text: JSON.stringify({ ...command, id }), then, repeat, once, lane: lane ?? id };
    const count = this.#waiting.length + this.#sent.size + this.#resting.size;
    const error = this.#over ?? (!once && count >= this.#options.queueMax && { reason: 'queue_full' });
    if (error) {
      then(new FanfareError(error));
    } else {
      if (!once) entry.timer = setTimeout(() => this.#fail(entry, { reason: 'timeout' }), timeoutMs);
      this.#waiting.push(entry);
      this.#flushSoon();
    }
    return id;
  }

  open(link, limits = {}) {
    this.#link = link;
    this.#limits = limits;
    this.#allowance = Infinity; // As much as the rate lets wait.
    this.#flushSoon();
  }

  /** True when the event was an answer to somebody. */
  settle(event) {
    const entry = this.#sent.get(event.id);
    if (!entry) return false;
    this.#sent.delete(entry.id);
    const { code } = event;
    const isUncertain = code === UNAVAILABLE;
    if (code === RATE_LIMITED || (isUncertain && (entry.repeat || entry.once))) {
      this.#resting.add(entry);
      entry.rest = setTimeout(() => {
        this.#resting.delete(entry);
        this.#waiting.unshift(entry);
        this.#flushSoon();
      }, (event.retry_after ?? RETRY_MS) * (1 + Math.random() / 4));
    } else {
      this.#done(entry, event.type === 'error' && new FanfareError(event, isUncertain), event);
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
    if (!this.#link || !this.#waiting.length) return false;
    const allowed = this.#allowed();
    const isHeldBack = this.#link.bufferedBytes > this.#options.bufferedBytesMax;
    if (isHeldBack || allowed < 1) {
      this.#alarms.set('flush', LOOK_MS, () => this.#flushSoon());
      return false;
    }
    const texts = this.#take(Math.min(BATCH_MAX, allowed));
    if (texts.length) this.#link.send(texts.length > 1 ? `[${texts}]` : texts[0]);
    return texts.length > 0;
  }

  /** Takes what may go now out of what waits. */
  #take(count) {
    const bytesMax = this.#limits.message_bytes;
    const busy = new Set([...this.#sent.values(), ...this.#resting].map((entry) => entry.lane));
    const texts = [];
    let bytes = 1;
    let isFull = false;
    for (const entry of [...this.#waiting]) {
      const { lane, text } = entry;
      const length = (entry.bytes ??= utf8.encode(text).length + 1);
      if (length > bytesMax) {
        // The server would hang up on it, with 1009.
        this.#done(entry, new FanfareError({ code: 4413, reason: 'too_large' }));
        continue;
      }
      isFull ||= texts.length >= count || (texts.length && bytes + length > bytesMax);
      if (!isFull && !busy.has(lane)) {
        texts.push(text);
        bytes += length;
        entry.wasSent = true;
        this.#sent.set(entry.id, entry);
      }
      busy.add(lane);
    }
    this.#waiting = this.#waiting.filter((entry) => !this.#sent.has(entry.id));
    this.#allowance -= texts.length;
    return texts;
  }

  /** How many commands the server's rate has room for. */
  #allowed() {
    const rate = (this.#limits.messages_per_second || 1e9) * RATE_SHARE;
    const at = now();
    this.#allowance = Math.min(rate, this.#allowance + ((at - this.#allowanceAt) * rate) / 1000);
    this.#allowanceAt = at;
    return Math.floor(this.#allowance);
  }
}
