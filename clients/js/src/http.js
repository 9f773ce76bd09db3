/**
 * A link where a network lets no WebSocket through: it hears by `/sse`, or where responses are held back until they end, by
 * `/poll`, and speaks by `POST /publish`. To the client it is a socket: it takes commands, and tells events and one end.
 *
 * The channels are named in the request, so a change of them is a new request, which goes on where each channel was left.
 *
 * Invariants:
 * - At most one response is listened to; one given up is deaf before the next is asked for.
 * - The first answer about a channel carries the id of the command that asked for it, which a response does not know.
 * - After the end nothing is told.
 */

/** How long a poll is held; shorter than most proxies' patience. */
const POLL_SECONDS = 20;
const DATA = 'data: ';

export class HttpLink {
  isDuplex = false;
  isProven = false;

  #url;
  #port;
  #fetch;
  #kind;
  #token;
  #patienceMs;
  #patience;
  #ticket;
  #promised;
  /** Channels of which the response has not said yet whether they are heard. */
  #unanswered = new Set();
  #ready;
  #isReady;
  /** Channel → the command that asked for it; its id goes with the first answer. */
  #channels = new Map();
  #hearing = new AbortController();
  #over = new AbortController();
  #isDue = false;
  /** What the last poll said to go on from, while the channels are the same. */
  #cursor;

  /** `port` also has `position(channel)`, where the application's subscription stands. */
  constructor(url, port, { fetch = globalThis.fetch, welcomeMs }, kind, token) {
    this.#url = url;
    this.#port = port;
    this.#fetch = (path, options) => fetch.call(globalThis, url + path, options);
    this.#kind = kind;
    this.#token = token;
    this.#patienceMs = welcomeMs;
    this.#greet();
  }

  send(text) {
    for (const command of [JSON.parse(text)].flat()) this.#perform(command);
  }

  close() {
    this.#over.abort();
    this.#deafen();
  }

  #deafen() {
    clearTimeout(this.#patience);
    this.#hearing.abort();
  }

  /** Goes on as the holder of another token. */
  renew(token) {
    this.#token = token;
    this.#listenSoon();
  }

  /** There is nothing to hear before there are channels; that somebody answers is all there is to know. */
  async #greet() {
    try {
      const answer = await this.#fetch('/health', { mode: 'no-cors', signal: this.#over.signal });
      if (answer.ok || answer.type === 'opaque') this.#tell({ type: 'welcome' });
      else await this.#refused(answer);
    } catch {
      this.#end('unreachable');
    }
  }

  /** What is answered about all channels; nothing where that is a refusal. */
  async #ask(path, signal) {
    const headers = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
    const answer = await this.#fetch(path + this.#query(), { signal, headers, cache: 'no-store' });
    if (answer.ok) return answer;
    return this.#refused(answer, signal);
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
      if (status === 401) return this.#end('unauthorized', 4401);
      const said = await answer.json().catch(() => ({}));
      // A proxy answers in words of its own where it reaches no node.
      const error = !ok && {
        type: 'error', code: status < 500 ? 4000 + status : 4503, reason: `status ${status}`, retry_after: retryAfterMs(answer),
      };
      return this.#tell({ ...error, ...said, id });
    } catch {
      // It may have arrived. The link is given up, so that what is under way is judged as after any other loss.
      return this.#end('unreachable');
    }
  }

  async #say(body) {
    const send = (authorization) => this.#fetch('/publish', {
      method: 'POST', headers: authorization ? { authorization } : {}, body, signal: this.#over.signal,
    });
    const bearer = this.#token && `Bearer ${this.#token}`;
    for (;;) {
      await this.#ready;
      const ticket = this.#ticket;
      const answer = await send(ticket ? `Ticket ${ticket}` : bearer);
      if (answer.ok || answer.status > 499 || !ticket) return answer;
      // A balancer brought it to a node that does not know the ticket: the token has to do, or nobody's name. A ticket that has been
      // replaced meanwhile proves nothing.
      if (ticket === this.#ticket) return answer.status === 404 ? send(bearer) : answer;
    }
  }

  /** Commands come in batches: the request is made when all of one are known. */
  #listenSoon() {
    this.#cursor = this.#ticket = undefined;
    if (this.#isDue) return;
    this.#isDue = true;
    // Who speaks waits for the next ticket: perhaps only those who hear may speak.
    if (this.#kind === 'sse' && !this.#isReady) this.#ready = new Promise((resolve) => { this.#isReady = resolve; });
    queueMicrotask(() => {
      this.#isDue = false;
      this.#deafen();
      if (!this.#channels.size) this.#hasTicket();
      if (this.#over.signal.aborted || !this.#channels.size) return;
      this.#hearing = new AbortController();
      this.#unanswered = new Set(this.#channels.keys());
      this.#listen(this.#hearing.signal);
    });
  }

  async #listen(signal) {
    try {
      if (this.#kind === 'sse') await this.#stream(signal);
      else while (!signal.aborted && this.#channels.size > 0) await this.#poll(signal);
    } catch {
      if (!signal.aborted) this.#end('unreachable');
    }
  }

  async #stream(signal) {
    // A proxy may hold back what comes until the response ends, which it never does.
    this.#patience = setTimeout(() => this.#end('held_back'), this.#patienceMs);
    const answer = await this.#ask('/sse?', signal);
    if (!answer) return;
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

  async #poll(signal) {
    const answer = await this.#ask(`/poll?wait=${POLL_SECONDS}&`, signal);
    if (!answer) return;
    const { since, events } = await answer.json();
    this.#cursor = since;
    this.#hear(events, signal);
    // Whoever says goodbye says it in the last answer.
    if (events.some((event) => event.type === 'closing')) this.#end('ended');
  }

  #query() {
    const commands = [...this.#channels.values()];
    const names = commands.map(({ channel }) => `channel=${encodeURIComponent(channel)}`);
    const places = commands.map(({ channel }) => this.#port.position(channel)).map((it) => (it ? `${it.epoch}:${it.offset}` : '-'));
    const cursor = this.#cursor ?? (places.some((it) => it !== '-') ? places.join(',') : undefined);
    if (cursor) names.push(`since=${cursor}`);
    const rewind = Math.max(...commands.map((it) => it.rewind ?? 0));
    if (rewind > 0) names.push(`rewind=${rewind}`);
    if (commands.some((it) => it.presence)) names.push('presence=true');
    return names.join('&');
  }

  /** None of the channels is to be had, or nothing at all. */
  async #refused(answer, signal) {
    const { status } = answer;
    const error = await answer.json().catch(() => ({}));
    if (signal?.aborted) return;
    if (this.#channels.size === 0 || ![400, 403, 404].includes(status) || error.code === undefined) {
      this.#end(error.reason ?? `status ${status}`, status === 401 ? 4401 : 1006, retryAfterMs(answer));
      return;
    }
    const asked = [...this.#channels.values()];
    this.#hasTicket();
    this.#channels.clear();
    for (const { channel, id } of asked) this.#tell({ ...error, channel, id });
  }

  #hear(events, signal) {
    this.isProven = true;
    clearTimeout(this.#patience);
    this.#port.heard([]); // A sign of life, whatever else.
    for (const event of events) {
      if (signal.aborted) return;
      const asked = this.#channels.get(event.channel);
      if (event.type === 'welcome') this.#promised = event.ticket;
      // The ticket of who hears nothing yet is worth nothing yet.
      if (this.#unanswered.delete(event.channel) && !this.#unanswered.size) this.#hasTicket(this.#promised);
      if (asked && (event.type === 'subscribed' || event.type === 'error')) {
        this.#tell({ ...event, id: asked.id });
        asked.id = undefined;
      } else {
        this.#tell(event);
      }
      if (event.type === 'error' || event.type === 'unsubscribed') this.#forget(event.channel);
    }
  }

  #hasTicket(ticket) {
    this.#ticket = ticket;
    this.#isReady?.();
    this.#isReady = undefined;
  }

  /** The cursor has a place for each of the channels. */
  #forget(channel) {
    this.#channels.delete(channel);
    this.#cursor = undefined;
  }

  #tell(event) {
    if (!this.#over.signal.aborted) this.#port.heard([event]);
  }

  #end(reason, code = 1006, retryAfter) {
    if (this.#over.signal.aborted) return;
    this.close();
    this.#port.ended({ code, reason, retryAfter });
  }
}

const retryAfterMs = (answer) => Number(answer.headers.get('retry-after')) * 1000 || undefined;
