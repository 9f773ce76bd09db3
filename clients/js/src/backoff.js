/** The longest wait that a timer can hold; a longer one would fire at once. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** Full jitter: from nothing to a ceiling that doubles, so that those who were cut off together do not come back together. */
export const backoffMs = (attempt, { baseMs, maxMs }) => Math.random() * Math.min(maxMs, baseMs * 2 ** attempt);

/** At most one timer of each name. */
export class Alarms {
  #timers = new Map();

  set(name, ms, then) {
    this.clear(name);
    this.#timers.set(name, setTimeout(then, Math.min(Math.max(ms, 0), TIMER_MAX_MS)));
  }

  clear(...names) {
    for (const name of names.length > 0 ? names : [...this.#timers.keys()]) {
      clearTimeout(this.#timers.get(name));
      this.#timers.delete(name);
    }
  }
}

/** A clock that nobody sets. */
export const now = () => performance.now();
