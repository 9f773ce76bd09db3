/** Listeners by the type of the event. One that throws hurts neither the others nor who tells. */
export class Emitter {
  #listeners = new Map();

  /** Gives back what takes the listener away again. */
  on(type, listener) {
    const known = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, known.add(listener));
    return () => known.delete(listener);
  }

  /** A promise of the next event of the type. */
  once(type) {
    return new Promise((resolve) => {
      const off = this.on(type, (event) => {
        off();
        resolve(event);
      });
    });
  }

  _emit(type, event) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        // Where the application's other mistakes go: `window.onerror`, or Node's `uncaughtException`.
        queueMicrotask(() => { throw error; });
      }
    }
  }
}
