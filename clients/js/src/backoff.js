/** The longest wait that a timer can hold; a longer one would fire at once. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** Full jitter: from nothing to a ceiling that doubles, so that those who were cut off together do not come back together. */
export const backoffMs = (attempt, { baseMs, maxMs }) => Math.random() * Math.min(maxMs, baseMs * 2 ** attempt);

/** At most one timer of each name. */
export class Alarms {
  #timers = new Map();

  set(name, ms, then) {
    this.clear(name);
    this.#timers.set(name, setTimeout(then, Math.min(ms, TIMER_MAX_MS)));
  }

  /** Whether it was set, and not cleared since. */
  has(name) {
    return this.#timers.has(name);
  }

  /** All of them unless a name is given. */
  clear(name) {
    for (const it of name ? [name] : this.#timers.keys()) {
      clearTimeout(this.#timers.get(it));
      this.#timers.delete(it);
    }
  }
}

/** A clock that nobody sets. */
export const now = () => performance.now();
