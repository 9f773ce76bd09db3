/**
 * The server API, as the holder of one key may use it. The key stays in this tab's session storage, and goes with the tab.
 *
 * `rights` is what the server says of the key; the page offers what they allow and nothing else. It is the server that enforces them.
 */

const STORED = 'fanfare.key';
const WITHIN_MS = 5_000;

/** The server's own answer to a call that failed, or that none came. */
export class Refused extends Error {
  constructor(status, { code, message } = {}) {
    super(message ?? (status ? `the node answered ${status}` : 'the node does not answer'));
    this.status = status;
    this.code = code;
  }
}

export class Api extends EventTarget {
  rights;
  #key = sessionStorage.getItem(STORED);

  get key() {
    return this.#key;
  }

  /** Asks what this key may do, before anything else is asked. */
  async open(key = this.#key) {
    this.#key = key;
    this.rights = await this.#ask('rights', { method: 'GET' });
    if (key) sessionStorage.setItem(STORED, key);
    return this.rights;
  }

  /** Forgets the key. */
  close() {
    sessionStorage.removeItem(STORED);
    this.#key = null;
    this.rights = undefined;
  }

  can(scope) {
    const { scopes } = this.rights;
    return scopes.includes('admin') || scopes.includes(scope);
  }

  /** Nodes and connections are shown to who is limited to no channels. */
  get seesCluster() {
    return this.can('read') && this.rights.channels === null;
  }

  call(method, body = {}) {
    return this.#ask(method, { method: 'POST', body: JSON.stringify(body) });
  }

  /** Has `take` told each line of an answer that goes on and on, until that ends. */
  async lines(method, take, signal) {
    const answer = await this.#fetch(method, { method: 'GET', signal });
    if (!answer.ok) await this.#refuse(answer);
    let rest = '';
    try {
      for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + part).split('\n');
        rest = lines.pop();
        lines.filter(Boolean).forEach((line) => take(JSON.parse(line)));
      }
    } catch {
      throw new Refused(0);
    }
  }

  async #ask(method, request) {
    const answer = await this.#fetch(method, { ...request, signal: AbortSignal.timeout(WITHIN_MS) });
    return answer.ok ? answer.json().catch(() => ({})) : this.#refuse(answer);
  }

  async #fetch(method, request) {
    const headers = this.#key ? { authorization: `Bearer ${this.#key}` } : {};
    try {
      return await fetch(`/api/${method}`, { ...request, headers, cache: 'no-store' });
    } catch {
      throw new Refused(0);
    }
  }

  async #refuse(answer) {
    const told = await answer.json().catch(() => ({}));
    // The key has been taken out of the configuration, or was never there.
    if (answer.status === 401) this.dispatchEvent(new Event('unauthorized'));
    throw new Refused(answer.status, told);
  }
}
