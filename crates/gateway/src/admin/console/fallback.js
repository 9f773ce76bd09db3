/**
 * A stand-in for a WebSocket where a network lets none through: it hears by one response of `/sse`, and speaks by `POST
 * /publish`. To `Connection` it is a socket: it takes commands, and gives events and one close.
 *
 * The channels are named in the request, so a change of them is a new request, which goes on where each channel was left: on
 * channels with history nothing is missed in between. A person's own `EventSource` would come back by itself, but would not tell why it
 * was refused; `Connection` comes back anyway.
 *
 * Invariants:
 * - At most one response is listened to; one given up is deaf before the next is asked for.
 * - A refusal carries the id of the command that it answers, which a response does not know.
 * - After the close nothing is told.
 */

/** The server says something at least every heartbeat, of which this is a multiple for any sensible one. */
const SILENCE_MAX_MS = 120_000;

const EVENT = 'data: ';

export class StandIn {
  onmessage = null;
  onclose = null;

  #base;
  #fetch;
  #now;
  /** Name → `{ id, since }`: the command that asked for it, until it is answered, and where it stands. */
  #channels = new Map();
  #hearing;
  #heardAt;
  #isDue = false;
  #isOver = false;
  #ticket;

  /** `base` is the gateway's address, such as `http://127.0.0.1:8000`. */
  constructor(base, { fetch: ask = (...it) => fetch(...it), now = () => performance.now() } = {}) {
    this.#base = base;
    this.#fetch = ask;
    this.#now = now;
    this.#greet();
  }

  send(text) {
    for (const command of [JSON.parse(text)].flat()) this.#perform(command);
  }

  close() {
    this.#isOver = true;
    this.#hearing?.abort();
  }

  /** There is nothing to hear before a channel is joined; that the node answers is all there is to know. */
  async #greet() {
    try {
      const { node } = await (await this.#fetch(`${this.#base}/status`)).json();
      this.#tell({ type: 'welcome', session: 'none: without WebSocket', node, user: null, channels: [] });
    } catch {
      this.#end('the gateway cannot be reached');
    }
  }

  #perform(command) {
    const { type, id, channel } = command;
    if (type === 'publish') {
      this.#post(command);
    } else if (type === 'ping') {
      this.#ping(id);
    } else if (type === 'subscribe') {
      this.#channels.set(channel, { id, since: command.since && { ...command.since } });
      this.#listenSoon();
    } else if (type === 'unsubscribe') {
      this.#channels.delete(channel);
      this.#tell({ type: 'unsubscribed', id, channel });
      this.#listenSoon();
    }
  }

  async #post(command) {
    const send = (headers) => this.#fetch(`${this.#base}/publish`, { method: 'POST', headers, body: JSON.stringify(command) });
    try {
      let answer = await send(this.#ticket ? { authorization: `Ticket ${this.#ticket}` } : {});
      // Between two streams nobody knows us; then anybody's permissions have to do.
      if (answer.status === 404 && this.#ticket) answer = await send({});
      this.#tell(await answer.json());
    } catch {
      this.#tell({ type: 'error', id: command.id, code: 4503, reason: 'unavailable', message: 'it could not be sent' });
    }
  }

  async #ping(id) {
    if (this.#hearing && this.#now() - this.#heardAt > SILENCE_MAX_MS) {
      this.#end('the server fell silent');
      return;
    }
    const answer = await this.#fetch(`${this.#base}/health`).catch(() => undefined);
    if (answer?.ok) this.#tell({ type: 'pong', id });
  }

  /** Commands come in batches: the request is made when all of one are known. */
  #listenSoon() {
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      this.#hearing?.abort();
      this.#hearing = undefined;
      if (this.#channels.size > 0 && !this.#isOver) this.#listen(new AbortController());
    });
  }

  async #listen(hearing) {
    this.#hearing = hearing;
    this.#heardAt = this.#now();
    try {
      const answer = await this.#fetch(`${this.#base}/sse?${this.#query()}`, { signal: hearing.signal });
      if (!answer.ok) {
        this.#refused(await answer.json(), hearing);
        return;
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (hearing.signal.aborted) return;
        if (done) break;
        this.#heardAt = this.#now();
        const lines = (rest + value).split('\n');
        rest = lines.pop();
        for (const line of lines) if (line.startsWith(EVENT)) this.#hear(JSON.parse(line.slice(EVENT.length)));
      }
    } catch {
      if (hearing.signal.aborted) return;
    }
    this.#end('the response has ended');
  }

  #query() {
    const names = [...this.#channels].map(([name]) => `channel=${encodeURIComponent(name)}`);
    const places = [...this.#channels].map(([, { since }]) => (since ? `${since.epoch}:${since.offset}` : '-'));
    return `${names.join('&')}${places.some((it) => it !== '-') ? `&since=${places.join(',')}` : ''}`;
  }

  /** None of the channels is to be had. */
  #refused(error, hearing) {
    if (hearing.signal.aborted) return;
    this.#hearing = undefined;
    const asked = [...this.#channels];
    this.#channels.clear();
    for (const [channel, { id }] of asked) this.#tell({ ...error, channel, id });
  }

  #hear(event) {
    const known = this.#channels.get(event.channel);
    switch (event.type) {
      case 'welcome':
        this.#ticket = event.ticket;
        return;
      case 'subscribed': {
        if (!known) return;
        const { epoch, offset } = event;
        if (epoch !== undefined && !(event.recovered && known.since?.epoch === epoch)) known.since = { epoch, offset };
        // A channel that is only listened to anew was never silent to whoever asked for it once.
        const isNews = known.id !== undefined || event.recovered === false;
        this.#tell({ ...event, id: known.id }, isNews);
        known.id = undefined;
        return;
      }
      case 'message':
        if (known?.since && event.offset !== undefined) known.since.offset = event.offset;
        break;
      case 'unsubscribed':
        this.#channels.delete(event.channel);
        break;
      case 'error':
        if (known) {
          this.#channels.delete(event.channel);
          this.#tell({ ...event, id: known.id });
          return;
        }
        break;
      default:
    }
    this.#tell(event);
  }

  #tell(event, isNews = true) {
    if (!this.#isOver && isNews) this.onmessage?.({ data: JSON.stringify(event) });
  }

  #end(reason) {
    if (this.#isOver) return;
    this.close();
    this.onclose?.({ code: 1006, reason });
  }
}
