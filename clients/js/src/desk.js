/**
 * Commands on their way: from being asked for, over connections that come and go, until they are answered.
 *
 * ```text
 *            flush                      answer
 *  waiting ────────► out ─────────────────────────────► done
 *     ▲               │ the connection is lost, or an error that time heals
 *     └───────────────┘ (what may be said twice; the rest fails, and says that it is uncertain)
 * ```
 *
 * Invariants:
 * - No more than `queueMax` commands wait or are under way, and each for no longer than its time.
 * - They go in the order in which they were asked for, also what has to be said again. Of those in one lane the next goes when the one
 *   before it is done, so nothing there is overtaken.
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
  #limits;
  #allowance;
  #allowanceAt = 0;

  /** By id, and so in the order in which they were asked for. */
  #entries = new Map();
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
   * `repeat` says that the command may be said twice, `once` that it belongs to this connection and is forgotten with it.
   * `then(error, answer)` is called once, in the turn in which the answer is heard.
   */
  _ask(command, { repeat, once, lane, timeoutMs = this.#options.timeoutMs }, then) {
    const id = ++this.#id;
    const text = JSON.stringify({ ...command, id });
    // What has no lane is alone in one of its own. `isOut` is unknown until it is said for the first time.
    const entry = { id, text, bytes: utf8.encode(text).length, lane: lane || id, repeat, once, then };
    this.#entries.set(id, entry);
    const error = this.#over ?? (!once && this.#entries.size > this.#options.queueMax && { reason: 'queue_full' });
    if (error) {
      this.#fail(entry, error);
    } else {
      if (!once) entry.timer = setTimeout(() => this.#fail(entry, { reason: 'timeout' }), timeoutMs);
      this.#flushSoon();
    }
    return id;
  }

  _open(link, limits = {}) {
    this.#link = link;
    this.#limits = limits;
    this.#allowance = Infinity; // As much as the rate lets wait.
    this.#flushSoon();
  }

  /** True when the event was an answer to somebody. */
  _settle(event) {
    const entry = this.#entries.get(event.id);
    if (!entry?.isOut) return false;
    const { code } = event;
    const isUncertain = code === UNAVAILABLE;
    if (code === RATE_LIMITED || (isUncertain && (entry.repeat || entry.once))) {
      entry.rest = setTimeout(() => {
        entry.isOut = false;
        entry.rest = undefined;
        this.#flushSoon();
      }, (event.retry_after ?? RETRY_MS) * (1 + Math.random() / 4));
    } else {
      this.#done(entry, event.type === 'error' && new FanfareError(event, isUncertain), event);
    }
    return true;
  }

  /** The connection is gone: what was under way is said again on the next where that does no harm. */
  _lost() {
    this.#link = undefined;
    for (const entry of this.#entries.values()) {
      if (entry.once) this.#forget(entry);
      else if (entry.isOut && !entry.rest) {
        if (entry.repeat) entry.isOut = false;
        else this.#fail(entry, { reason: 'disconnected' });
      }
    }
  }

  /** Nobody will be answered any more. */
  _close(error) {
    this.#over = error;
    this.#link = undefined;
    for (const entry of this.#entries.values()) this.#fail(entry, error);
  }

  #fail(entry, error) {
    this.#done(entry, new FanfareError(error, entry.isOut !== undefined));
  }

  #done(entry, error, answer) {
    this.#forget(entry);
    this.#flushSoon();
    entry.then?.(error, answer);
  }

  #forget({ id, timer, rest }) {
    clearTimeout(timer);
    clearTimeout(rest);
    this.#entries.delete(id);
  }

  /** In a microtask: whatever the application asks for in one go goes in one frame. */
  #flushSoon() {
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      this.#flush();
    });
  }

  #flush() {
    while (this.#link && this.#entries.size) {
      const rate = (this.#limits.messages_per_second || 1e9) * RATE_SHARE;
      const at = now();
      this.#allowance = Math.min(rate, this.#allowance + ((at - this.#allowanceAt) * rate) / 1000);
      this.#allowanceAt = at;
      if (this.#allowance < 1 || this.#link._bufferedBytes > this.#options.bufferedBytesMax) {
        this.#alarms.set('flush', LOOK_MS, () => this.#flushSoon());
        return;
      }
      const texts = this.#take(Math.min(BATCH_MAX, this.#allowance));
      if (!texts.length) return;
      this.#allowance -= texts.length;
      this.#link._send(texts.length > 1 ? `[${texts}]` : texts[0]);
    }
  }

  /** Takes what goes in the next frame, at most `count` commands. */
  #take(count) {
    const bytesMax = this.#limits.message_bytes;
    const busy = new Set();
    const texts = [];
    let length = 1;
    for (const entry of this.#entries.values()) {
      const { lane, text, bytes } = entry;
      if (!entry.isOut && !busy.has(lane)) {
        if (bytes > bytesMax) {
          // The server would hang up on it, with 1009.
          this.#fail(entry, { code: 4413, reason: 'too_large' });
          continue;
        }
        length += bytes + 1;
        if (texts.length > count - 1 || (texts.length && length > bytesMax)) break;
        texts.push(text);
        entry.isOut = true;
      }
      busy.add(lane);
    }
    return texts;
  }
}
