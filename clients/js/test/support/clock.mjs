/** Time that a test moves. Sockets go on in real time: wait for what they bring by `until`. */

import { until } from './until.mjs';

export class Clock {
  #timers;
  #ms = 1000;

  /** `t` is the test's context, which puts real time back at the test's end. */
  constructor(t) {
    this.#timers = t.mock.timers;
    this.#timers.enable({ apis: ['setTimeout', 'Date'], now: Date.UTC(2026, 0, 1) });
    t.mock.method(performance, 'now', () => this.#ms);
  }

  /** Lets time pass: all at once but for `stepMs`, so that a timer that sets a timer is met as in real time. */
  pass(ms, stepMs = 50) {
    for (let left = ms; left > 0; left -= stepMs) {
      const step = Math.min(stepMs, left);
      this.#ms += step;
      this.#timers.tick(step);
    }
  }

  /** Lets time pass, while sockets are heard, until the condition holds. */
  async passUntil(condition, stepMs = 20) {
    await until(async () => {
      if (condition()) return true;
      this.pass(stepMs);
      return false;
    }, String(condition));
  }
}

/** Draws of `Math.random`, the last one for ever. */
export function draws(t, ...values) {
  t.mock.method(Math, 'random', () => (values.length > 1 ? values.shift() : values[0]));
}
