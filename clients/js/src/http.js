/**
 * A link where a network lets no WebSocket through: it hears by `/sse`, or where responses are held back until they end, by
 * `/poll`, and speaks by `POST /publish`. To the client it is a socket: it takes commands, and tells events and one end.
 *
 * The channels are named in the request, so a change of them is a new request, which goes on where each channel was left.
 *
 * Invariants:
 * - At most one response is listened to; one given up is deaf before the next is asked for.
 * - The first answer about a channel carries the id of the command that asked for it, which a response does not know.
 */

/** How long a poll is held; shorter than most proxies' patience. */
const POLL_SECONDS = 20;
const DATA = 'data: ';

export class HttpLink {
  _isDuplex = false;
  _isProven = false;

  #url;
  #port;
  #fetchAny;
  #kind;
  #token;
  #patienceMs;
  #patience;
  #promised;
  /** Channels of which the response has not said yet whether they are heard. */
  #unanswered = new Set();
  /** Of a ticket. Who speaks waits for it: perhaps only those who hear may speak. */
  #ready;
  #isReady = () => {};
  /** Channel → the command that asked for it; its id goes with the first answer. */
  #channels = new Map();
  #hearing = new AbortController();
  #over = new AbortController();
  #isDue = false;
  /** What the last poll said to go on from, while the channels are the same. */
  #cursor;

  /**
   * `port` also has `_position(channel)`, where the application's subscription stands. It is deaf to a link that has ended or was closed:
   * what was under way then may still be told.
   */
  constructor(url, port, { fetch = globalThis.fetch, welcomeMs }, kind, token) {
    this.#url = url;
    this.#port = port;
    this.#fetchAny = fetch;
    this.#kind = kind;
    this.#token = token;
    this.#patienceMs = welcomeMs;
    this.#greet();
  }

  _send(text) {
    for (const command of [JSON.parse(text)].flat()) this.#perform(command);
  }

  _close() {
    this.#over.abort();
    this.#deafen();
  }

  /** Goes on as the holder of another token. */
  _renew(token) {
    this.#token = token;
    this.#listenSoon();
  }

  #deafen() {
    clearTimeout(this.#patience);
    this.#hearing.abort();
  }

  #fetch(path, authorization, options) {
    const headers = authorization ? { authorization } : {};
    return this.#fetchAny.call(globalThis, this.#url + path, { headers, cache: 'no-store', signal: this.#over.signal, ...options });
  }

  get #bearer() {
    return this.#token && `Bearer ${this.#token}`;
  }

  /** There is nothing to hear before there are channels; that somebody answers is all there is to know. */
  async #greet() {
    try {
      const answer = await this.#fetch('/health', '', { mode: 'no-cors' });
      if (answer.ok || answer.type === 'opaque') this.#tell({ type: 'welcome' });
      else await this.#refused(answer);
    } catch {
      this.#end('unreachable');
    }
  }

  #perform(command) {
    const { type, id, channel } = command;
    if (type === 'publish') {
      this.#post(command);
    } else if (type === 'subscribe') {
      this.#channels.set(channel, command);
      this.#listenSoon();
    } else if (type === 'unsubscribe') {
      this.#channels.delete(channel);
      this.#tell({ type: 'unsubscribed', id, channel });
      this.#listenSoon();
    } else {
      this.#tell({ type: 'error', id, channel, code: 4404, reason: 'not_found', message: 'needs WebSocket' });
    }
  }

  async #post(command) {
    const { id } = command;
    try {
      const answer = await this.#say(JSON.stringify(command));
      const { ok, status } = answer;
      if (status === 401) return this.#refused(answer);
      const said = await answer.json().catch(() => ({}));
      // A proxy answers in words of its own where it reaches no node.
      const error = !ok && {
        type: 'error', code: status < 500 ? 4000 + status : 4503, reason: `status ${status}`, retry_after: retryAfterMs(answer),
      };
      this.#tell({ ...error, ...said, id });
    } catch {
      // It may have arrived. The link is given up, so that what is under way is judged as after any other loss.
      this.#end('unreachable');
    }
  }

  async #say(body) {
    const send = (authorization) => this.#fetch('/publish', authorization, { method: 'POST', body });
    for (;;) {
      const ready = this.#ready;
      const ticket = await ready;
      const answer = await send(ticket ? `Ticket ${ticket}` : this.#bearer);
      if (answer.ok || answer.status > 499 || !ticket) return answer;
      // A balancer brought it to a node that does not know the ticket: the token has to do, or nobody's name. A ticket that has been
      // replaced meanwhile proves nothing.
      if (ready === this.#ready) return answer.status === 404 ? send(this.#bearer) : answer;
    }
  }

  /** Commands come in batches: the request is made when all of one are known. */
  #listenSoon() {
    this.#cursor = undefined;
    if (this.#isDue) return;
    this.#isDue = true;
    if (this.#kind === 'sse') {
      const isReady = this.#isReady;
      this.#ready = new Promise((resolve) => { this.#isReady = resolve; });
      isReady(this.#ready); // Whoever waits goes on waiting, for this one.
    }
    queueMicrotask(() => {
      this.#isDue = false;
      this.#deafen();
      this.#hearing = new AbortController();
      this.#unanswered = new Set(this.#channels.keys());
      if (this.#over.signal.aborted) return;
      if (this.#channels.size) this.#listen(this.#hearing.signal);
      else this.#isReady();
    });
  }

  async #listen(signal) {
    try {
      // A proxy may hold back what comes until the response ends, which a stream never does.
      if (this.#kind === 'sse') this.#patience = setTimeout(() => this.#end('held_back'), this.#patienceMs);
      while (!signal.aborted && this.#channels.size) {
        const answer = await this.#fetch(this.#path, this.#bearer, { signal });
        if (!answer.ok) await this.#refused(answer, signal);
        else if (this.#kind === 'sse') await this.#stream(answer, signal);
        else await this.#page(answer, signal);
      }
    } catch {
      if (!signal.aborted) this.#end('unreachable');
    }
  }

  async #stream(answer, signal) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (signal.aborted) return;
      if (done) break;
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      this.#hear(lines.filter((line) => line.startsWith(DATA)).map((line) => JSON.parse(line.slice(DATA.length))), signal);
    }
    this.#end('ended');
  }

  async #page(answer, signal) {
    const { since, events } = await answer.json();
    this.#cursor = since;
    this.#hear(events, signal);
    // Whoever says goodbye says it in the last answer.
    if (events.some((event) => event.type === 'closing')) this.#end('ended');
  }

  /** What is to be heard, and from where on. */
  get #path() {
    const commands = [...this.#channels.values()];
    const places = commands.map(({ channel }) => this.#port._position(channel)).map((it) => (it ? `${it.epoch}:${it.offset}` : '-'));
    const query = commands.map(({ channel }) => `&channel=${encodeURIComponent(channel)}`);
    const cursor = this.#cursor ?? (places.some((it) => it !== '-') && places);
    if (cursor) query.push(`&since=${cursor}`);
    const rewind = Math.max(...commands.map((it) => it.rewind ?? 0));
    if (rewind) query.push(`&rewind=${rewind}`);
    if (commands.some((it) => it.presence)) query.push('&presence=true');
    return `/${this.#kind}?wait=${POLL_SECONDS}${query.join('')}`;
  }

  /** None of the channels is to be had, or nothing at all. */
  async #refused(answer, signal) {
    const { status } = answer;
    const error = await answer.json().catch(() => ({}));
    if (signal?.aborted) return;
    if (!this.#channels.size || ![400, 403, 404].includes(status) || !error.code) {
      // The same for all who were refused, unlike the wait that `closing` names.
      this.#end(error.reason ?? `status ${status}`, status === 401 ? 4401 : undefined, retryAfterMs(answer) * (1 + Math.random()) || undefined);
      return;
    }
    const asked = [...this.#channels.values()];
    this.#isReady();
    this.#channels.clear();
    for (const { channel, id } of asked) this.#tell({ ...error, channel, id });
  }

  #hear(events, signal) {
    this._isProven = true;
    clearTimeout(this.#patience);
    this.#port._heard([]); // A sign of life, whatever else.
    for (const event of events) {
      if (signal.aborted) return;
      const { type, channel } = event;
      const asked = this.#channels.get(channel);
      if (type === 'welcome') this.#promised = event.ticket;
      // The ticket of who hears nothing yet is worth nothing yet.
      if (this.#unanswered.delete(channel) && !this.#unanswered.size) this.#isReady(this.#promised);
      if (asked && (type === 'subscribed' || type === 'error')) {
        event.id = asked.id;
        asked.id = undefined;
      }
      this.#tell(event);
      // The cursor has a place for each of the channels.
      if ((type === 'error' || type === 'unsubscribed') && this.#channels.delete(channel)) this.#cursor = undefined;
    }
  }

  #tell(event) {
    this.#port._heard([event]);
  }

  #end(reason, code, after) {
    this._close();
    this.#port._ended({ code, reason, after });
  }
}

const retryAfterMs = (answer) => Number(answer.headers.get('retry-after')) * 1000 || undefined;
