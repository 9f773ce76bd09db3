/**
 * One tab's conversation with a gateway, over sockets that may die at any time. It knows the protocol
 * (`fanfare.v1.json`) and nothing of the page.
 *
 * ```text
 *             socket opens, welcome arrives
 *  connecting ─────────────────────────────► open
 *      ▲  │                                   │
 *      │  └──────────────┐   ┌────────────────┘  close, silence, or no welcome in time
 *      │ delay is over   ▼   ▼
 *      └──────────────  waiting          stopped: the server said not to come back
 * ```
 *
 * Invariants:
 * - The states exclude each other, so one timer serves them all: the deadline of the welcome, the next
 *   heartbeat, or the end of the wait.
 * - At most one socket is listened to. One given up is deaf before the next is made.
 * - `channels` is what the person wants. Sockets come and go; each welcome is answered by one batch that
 *   subscribes to all of it, from where each channel was left when the server keeps history.
 *
 * A browser hides WebSocket pings from its page, so the heartbeat is the protocol's own `ping`.
 *
 * Where a WebSocket was never welcomed in a row of attempts, every other attempt is one of a stand-in, if the world has one: a
 * network may let no WebSocket through. The next connection begins with a WebSocket again.
 */

export const SUBPROTOCOL = 'fanfare.v1.json';

const WELCOME_WITHIN_MS = 10_000;
const PING_EVERY_MS = 5_000;
const SILENCE_MAX_MS = 10_000;
/** A connection that lived this long was a good one: the next backoff starts from the beginning. */
const STABLE_AFTER_MS = 5_000;
const BACKOFF_BASE_MS = 500;
const BACKOFF_MAX_MS = 15_000;
/** Attempts at a WebSocket without a welcome, after which a stand-in has its turn. */
const BLOCKED_AFTER = 2;
/** Publications remembered until they come back, to tell one's own from the others'. */
const SENT_MAX = 64;

/** Closes after which coming back would meet the same answer. */
const FINAL_CLOSES = new Set([1000, 1002, 1003, 1007, 1009, 4400, 4401, 4403]);
/** Errors that time heals: the broker is away, or we were too fast. */
const PASSING_ERRORS = new Set([4429, 4503]);
const CONFLICT = 4409;
const GAP = 4410;

/** What `Connection` needs of the world; tests bring their own. */
const BROWSER = {
  socket: (url) => new WebSocket(url, SUBPROTOCOL),
  standIn: undefined,
  after: (ms, then) => setTimeout(then, ms),
  cancel: (timer) => clearTimeout(timer),
  now: () => performance.now(),
  random: () => Math.random(),
};

/**
 * Full jitter: anything from nothing to a ceiling that doubles, so that clients cut off together do not
 * come back together.
 */
export function backoffMs(attempt, random) {
  return random * Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** attempt);
}

export class Connection {
  /** Name → `{ state: 'joining' | 'joined' | 'refused', since, error }`. Read it; change it by `join` and `leave`. */
  channels = new Map();

  #url;
  #listener;
  #world;
  #state = { name: 'stopped' };
  #timer;
  #socket;
  #isStandIn = false;
  /** What `closing` said; the close event that follows carries less. */
  #closing;
  #attempt = 0;
  /** Attempts since the last welcome. */
  #unwelcome = 0;
  #openedAt;
  #heardAt;
  /** When the unanswered ping left. */
  #pingedAt;
  #id = 0;
  /** Command id → what it asked, until it is answered. */
  #asked = new Map();
  /** Own publications under way, as `[id, channel, JSON text]`. */
  #sent = [];

  /**
   * `listener` has `state(state)`, `channels()`, `message(message, isOwn)`, `trouble(error)` and
   * `roundTrip(ms)`.
   */
  constructor(url, listener, world = {}) {
    this.#url = url;
    this.#listener = listener;
    this.#world = { ...BROWSER, ...world };
  }

  get state() {
    return this.#state;
  }

  /** Connects now, whatever was being waited for. Does nothing while a connection is there or under way. */
  connect() {
    if (this.#state.name === 'connecting' || this.#state.name === 'open') return;
    this.#closing = undefined;
    this.#enter({ name: 'connecting' }, WELCOME_WITHIN_MS, () => this.#lost('no welcome in time'));
    const isStandIn = this.#world.standIn !== undefined && this.#unwelcome >= BLOCKED_AFTER && this.#unwelcome % 2 === 0;
    this.#unwelcome += 1;
    const socket = isStandIn ? this.#world.standIn() : this.#world.socket(this.#url);
    this.#isStandIn = isStandIn;
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#closed(event);
    this.#socket = socket;
  }

  join(channel) {
    const known = this.channels.get(channel);
    if (known && known.state !== 'refused') return;
    this.channels.set(channel, { state: 'joining' });
    this.#subscribe([channel]);
    this.#listener.channels();
  }

  leave(channel) {
    const known = this.channels.get(channel);
    if (!known) return;
    this.channels.delete(channel);
    if (known.state !== 'refused') this.#ask({ type: 'unsubscribe', channel });
    this.#listener.channels();
  }

  /** False, and nothing was sent, unless the connection is open. */
  publish(channel, data) {
    const id = this.#ask({ type: 'publish', channel, data });
    if (id === undefined) return false;
    this.#sent.push({ id, channel, text: JSON.stringify(data) });
    if (this.#sent.length > SENT_MAX) this.#sent.shift();
    return true;
  }

  #enter(state, ms, then) {
    this.#world.cancel(this.#timer);
    this.#timer = ms === undefined ? undefined : this.#world.after(ms, then);
    this.#state = state;
    this.#listener.state(state);
  }

  #ask(command) {
    if (this.#state.name !== 'open') return undefined;
    const id = ++this.#id;
    this.#asked.set(id, command);
    this.#socket.send(JSON.stringify({ ...command, id }));
    return id;
  }

  #subscribe(names) {
    if (this.#state.name !== 'open' || names.length === 0) return;
    const batch = names.map((channel) => {
      const { since } = this.channels.get(channel);
      const command = { type: 'subscribe', channel, ...(since && { since }) };
      this.#asked.set(++this.#id, command);
      return { ...command, id: this.#id };
    });
    this.#socket.send(JSON.stringify(batch.length === 1 ? batch[0] : batch));
  }

  #receive(text) {
    this.#heardAt = this.#world.now();
    const parsed = JSON.parse(text);
    for (const event of Array.isArray(parsed) ? parsed : [parsed]) {
      const asked = this.#asked.get(event.id);
      this.#asked.delete(event.id);
      this.#handle(event, asked);
    }
  }

  #handle(event, asked) {
    switch (event.type) {
      case 'welcome': return this.#welcomed(event);
      case 'subscribed': return this.#subscribed(event);
      case 'unsubscribed': return this.#unsubscribed(event);
      case 'message': return this.#heard(event);
      case 'error': return this.#failed(event, asked);
      case 'closing': return void (this.#closing = event);
      case 'pong': return this.#ponged();
      default: return undefined; // A later version's word; the protocol asks to leave it alone.
    }
  }

  #welcomed(event) {
    this.#openedAt = this.#world.now();
    this.#pingedAt = undefined;
    this.#unwelcome = 0;
    this.#enter({ name: 'open', session: event.session, node: event.node, user: event.user, isStandIn: this.#isStandIn });
    const wanted = [...this.channels.keys()];
    for (const channel of event.channels ?? []) this.channels.set(channel, { state: 'joined' });
    this.#subscribe(wanted.filter((channel) => this.channels.get(channel).state === 'joining'));
    this.#listener.channels();
    this.#beat();
  }

  #subscribed(event) {
    const known = this.channels.get(event.channel);
    if (!known) return;
    const { epoch, offset } = event;
    const cameBack = known.since !== undefined; // Whoever comes for the first time has missed nothing.
    // What was missed follows as messages, each moving `since`; until it has, the old position is the true one.
    if (epoch !== undefined && !(event.recovered && known.since?.epoch === epoch)) known.since = { epoch, offset };
    known.state = 'joined';
    known.error = undefined;
    this.#listener.channels();
    if (cameBack && event.recovered === false) {
      this.#listener.trouble({ channel: event.channel, text: 'Some messages were missed: history no longer has them.' });
    }
  }

  #unsubscribed(event) {
    const known = this.channels.get(event.channel);
    if (!known || event.code === undefined) return;
    if (event.code === GAP) {
      known.state = 'joining';
      this.#subscribe([event.channel]);
    } else {
      known.state = 'refused';
      known.error = event;
    }
    this.#listener.channels();
    this.#listener.trouble(event);
  }

  #heard(event) {
    const known = this.channels.get(event.channel);
    if (!known) return;
    if (known.since && event.offset !== undefined) known.since.offset = event.offset;
    // Two equal texts under way in one channel cannot be told apart, by us or by anyone: either may be ours.
    const text = JSON.stringify(event.data);
    const own = this.#sent.findIndex((sent) => sent.channel === event.channel && sent.text === text);
    if (own >= 0) this.#sent.splice(own, 1);
    this.#listener.message(event, own >= 0);
  }

  #failed(event, asked) {
    if (asked?.type === 'publish') this.#sent = this.#sent.filter((sent) => sent.id !== event.id);
    if (asked?.type === 'subscribe') this.#notSubscribed(asked.channel, event);
    if (asked?.type === 'subscribe' && event.code === CONFLICT) return;
    this.#listener.trouble({ channel: asked?.channel, ...event });
  }

  #notSubscribed(channel, error) {
    const known = this.channels.get(channel);
    if (!known) return;
    if (error.code === CONFLICT) {
      known.state = 'joined';
    } else if (PASSING_ERRORS.has(error.code)) {
      const socket = this.#socket;
      this.#world.after((error.retry_after ?? 1_000) + backoffMs(0, this.#world.random()), () => {
        if (this.#socket === socket && this.channels.get(channel) === known) this.#subscribe([channel]);
      });
    } else {
      known.state = 'refused';
      known.error = error;
    }
    this.#listener.channels();
  }

  #ponged() {
    if (this.#pingedAt === undefined) return;
    this.#listener.roundTrip(this.#world.now() - this.#pingedAt);
    this.#pingedAt = undefined;
  }

  /**
   * A peer is dead when a ping went unanswered and nothing else was heard since, for `SILENCE_MAX_MS`.
   * Judged only against a ping that left: a browser may hold this timer back for minutes in a hidden tab.
   */
  #beat() {
    const now = this.#world.now();
    if (this.#pingedAt === undefined) {
      this.#pingedAt = now;
      this.#ask({ type: 'ping' });
    } else if (now - Math.max(this.#pingedAt, this.#heardAt) >= SILENCE_MAX_MS) {
      this.#lost('the server fell silent');
      return;
    }
    this.#timer = this.#world.after(PING_EVERY_MS, () => this.#beat());
  }

  /** Gives the socket up without waiting for a closing handshake that a dead peer will never answer. */
  #lost(why) {
    this.#socket.onmessage = null;
    this.#socket.onclose = null;
    this.#socket.close();
    this.#closed({ code: 1006, reason: why });
  }

  #closed(event) {
    const { code, reason, reconnect, after } = this.#closing ?? {
      code: event.code,
      reason: event.reason,
      reconnect: !FINAL_CLOSES.has(event.code),
    };
    this.#asked.clear();
    this.#sent = [];
    for (const known of this.channels.values()) {
      known.state = 'joining';
      known.error = undefined;
    }
    if (reconnect === false) {
      this.#enter({ name: 'stopped', code, reason });
    } else {
      if (this.#openedAt !== undefined && this.#world.now() - this.#openedAt >= STABLE_AFTER_MS) this.#attempt = 0;
      // The server's own delay is already jittered: it spreads the clients of a draining node.
      const delay = after ?? backoffMs(this.#attempt, this.#world.random());
      this.#attempt += 1;
      this.#enter({ name: 'waiting', code, reason, until: this.#world.now() + delay }, delay, () => this.connect());
    }
    this.#openedAt = undefined;
    this.#listener.channels();
  }
}
