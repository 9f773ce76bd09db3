/**
 * A client of Fanfare: one conversation with a cluster, over connections that may die at any time.
 *
 * ```text
 *             link opens, welcome arrives
 *  connecting ─────────────────────────────► connected
 *      ▲  │                                      │
 *      │  └──────────────┐   ┌───────────────────┘  close, silence, or no welcome in time
 *      │ wait is over    ▼   ▼
 *      └──────────────  waiting          closed: by the application, or the server said not to come back
 * ```
 *
 * Invariants:
 * - At most one link is listened to. One given up is deaf before the next is made.
 * - `subscriptions` is what the application wants. Links come and go; each welcome is answered by subscribing to all of it, from
 *   where each channel was left.
 * - The wait that a server names is kept; one of our own is random, and cut short when the network comes back.
 */

import { Alarms, backoffMs, now } from './backoff.js';
import { Desk } from './desk.js';
import { Emitter } from './emitter.js';
import { FanfareError } from './error.js';
import { HttpLink } from './http.js';
import { SocketLink } from './socket.js';
import { Subscription } from './subscription.js';

const DEFAULTS = {
  transports: ['websocket', 'sse', 'poll'],
  backoff: { baseMs: 500, maxMs: 20_000 },
  welcomeMs: 10_000,
  pingMs: 25_000,
  pongMs: 10_000,
  /** Well within the time for which the server knows a publication again (five minutes unless configured). */
  timeoutMs: 60_000,
  queueMax: 1024,
  bufferedBytesMax: 1 << 20,
  probeMs: 60_000,
};
/** A connection that lived this long was a good one: the next wait is drawn as for a first failure. */
const STABLE_MS = 5_000;
const REFRESH_LEAD_MS = 60_000;
/** When there is no fresh token, or it is refused, another is asked for as if the old one ended then. */
const REFRESH_AGAIN_MS = 10_000;
/** However the clocks stand, this much is left: a fresh token is not asked for in a tight loop. */
const REFRESH_LEFT_MS = 2_000;
/** Closes after which the same client would meet the same answer. */
const FINAL_CLOSES = [1000, 1002, 1003, 1007, 1009, 4400, 4403];
const UNAUTHORIZED = 4401;
const BAD_REQUEST = 4400;
const CONFLICT = 4409;
const GAP = 4410;
const AUTH_ID = 'auth';
const PING = '{"type":"ping"}';

export class Fanfare extends Emitter {
  state = { name: 'closed' };
  subscriptions = new Map();

  #url;
  #options;
  #alarms = new Alarms();
  #desk;
  #link;
  #world;
  #token;
  /** What `closing` said; the close that follows carries less. */
  #closing;
  #attempt = 0;
  #welcomedAt;
  /** Which transport has its turn: failures of one that was never heard. */
  #turn = 0;
  #heardAt = 0;
  /** The server's clock less our own, in milliseconds. */
  #clockOff = 0;
  #expires;
  /** Namespaces that keep no history take no keys. */
  #keyless = new Set();

  constructor(url, options = {}) {
    super();
    const { href } = new URL(url, globalThis.location?.href);
    this.#url = href.replace(/^ws/, 'http').replace(/(\/(ws\/?)?)?([?#].*)?$/, '');
    this.#options = { ...DEFAULTS, ...options, backoff: { ...DEFAULTS.backoff, ...options.backoff } };
    this.#token = options.token;
    this.connect();
  }

  /** Again, after it was closed. */
  connect() {
    if (this.state.name !== 'closed') return;
    this.#desk = new Desk(this.#options, this.#alarms);
    this.#watchWorld();
    this.#open();
  }

  /** Ends the conversation; what was not answered fails. */
  close() {
    this.#closed({ code: 0, reason: 'closed' });
  }

  /** The application's subscription to the channel: the same one however often it is asked for. */
  subscribe(channel, options = {}) {
    const known = this.subscriptions.get(channel);
    if (known) return known;
    const subscription = new Subscription(this, channel, options);
    this.subscriptions.set(channel, subscription);
    this._enter(subscription);
    return subscription;
  }

  /**
   * Resolves when the broker has taken it. Said again, under one key, over lost connections and while the broker is away, until
   * that is known or its time is over.
   */
  async publish(channel, data = null, { key, ordered = true, timeoutMs, ...more } = {}) {
    const [namespace] = channel.split(':');
    const makesKey = key === undefined && !this.#keyless.has(namespace);
    const command = { type: 'publish', channel, data, ...more, key: makesKey ? randomKey() : key ?? undefined };
    let answer;
    try {
      answer = await this.#ask(command, { repeat: command.key, lane: ordered && channel, timeoutMs });
    } catch (error) {
      if (error.code !== BAD_REQUEST || !makesKey) throw error;
      // Perhaps for the key: then not again in this namespace.
      answer = await this.publish(channel, data, { key: null, ordered, timeoutMs, ...more });
      this.#keyless.add(namespace);
    }
    if (more.echo === false) this.subscriptions.get(channel)?._published(answer);
    return answer;
  }

  history(channel, options) {
    return this.#read('history', channel, options);
  }

  presence(channel, options) {
    return this.#read('presence', channel, options);
  }

  #read(type, channel, { timeoutMs, ...more } = {}) {
    return this.#ask({ type, channel, ...more }, { repeat: true, timeoutMs });
  }

  #ask(command, options) {
    return new Promise((resolve, reject) => {
      this.#desk._ask(command, options, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  // --- For subscriptions ---

  _enter(subscription) {
    if (this.state.name !== 'connected' || subscription.state !== 'subscribing') return;
    const then = (error) => {
      if (!error || subscription._expects !== id) return;
      if (error.code === CONFLICT) {
        this._pause(subscription);
        this._enter(subscription);
      } else {
        this.#end(subscription, error);
      }
    };
    const id = subscription._expects = this.#desk._ask(subscription._command, { once: true }, then);
  }

  _leave(subscription) {
    if (this.subscriptions.get(subscription.channel) !== subscription) return;
    const { state } = subscription;
    this.#end(subscription);
    if (state !== 'paused') this._pause(subscription);
  }

  _pause({ channel }) {
    if (this.state.name === 'connected') this.#desk._ask({ type: 'unsubscribe', channel }, { once: true });
  }

  #end(subscription, event) {
    this.subscriptions.delete(subscription.channel);
    subscription._ended(event);
  }

  // --- The connection ---

  #enter(state) {
    this.state = state;
    this._emit('state', state);
  }

  /** Calls `then` unless another connection, or none, is wanted by then. */
  async #withToken(then) {
    const { getToken } = this.#options;
    const { state } = this;
    try {
      const token = this.#token ?? (getToken && (await getToken()));
      if (this.state !== state) return;
      this.#token = token;
    } catch (error) {
      if (this.state !== state) return;
      this._emit('error', error);
      if (state.name === 'connecting') this.#lost({ reason: 'no_token' });
      else this.#refreshLater(REFRESH_AGAIN_MS);
      return;
    }
    if (getToken && !this.#token) this.#closed({ code: UNAUTHORIZED, reason: 'unauthorized' });
    else then();
  }

  #open() {
    this.#closing = undefined;
    const { transports, welcomeMs } = this.#options;
    // A WebSocket has two tries: one may be bad luck.
    const turns = transports.flatMap((it) => (it === 'websocket' ? [it, it] : [it]));
    const transport = turns[this.#turn % turns.length];
    this.#enter({ name: 'connecting', transport });
    this.#alarms.set('state', welcomeMs, () => this.#lost({ reason: 'no_welcome' }));
    this.#withToken(() => {
      const port = {
        _opened: () => this.#token && this.#authenticate(),
        _heard: (events) => link === this.#link && this.#heard(events),
        _ended: (close) => link === this.#link && this.#lost(close),
        _position: (channel) => this.subscriptions.get(channel)?.position,
      };
      let link;
      try {
        link = transport === 'websocket'
          ? new SocketLink(this.#url, port, this.#options)
          : new HttpLink(this.#url, port, this.#options, transport, this.#token);
      } catch (error) {
        this._emit('error', error);
        this.#lost({ reason: 'unsupported' });
        return;
      }
      this.#link = link;
    });
  }

  #authenticate() {
    this.#link._send(JSON.stringify({ type: 'auth', id: AUTH_ID, token: this.#token }));
  }

  #heard(events) {
    this.#heardAt = now();
    this.#alarms.clear('pong');
    const link = this.#link;
    for (const event of events) {
      if (this.#link !== link) return;
      this.#handle(event);
    }
  }

  #handle(event) {
    const subscription = this.subscriptions.get(event.channel);
    const isAnswer = this.#desk._settle(event);
    switch (event.type) {
      case 'welcome': this.#welcomed(event); break;
      case 'refreshed': this.#expiresAt(event.expires); break;
      case 'subscribed': subscription?._entered(event); break;
      case 'unsubscribed': if (event.code) this.#unsubscribed(subscription, event); break;
      case 'message':
      case 'joined':
      case 'left': subscription?._heard(event); break;
      case 'pong': this.#clockIs(event.time); break;
      case 'closing': this.#closing = event; break;
      case 'error': if (!isAnswer) this.#failed(event); break;
      default: // A later version's word; the protocol asks to leave it alone.
    }
  }

  #welcomed(event) {
    // Before the token was looked at, where anonymous clients are let in too.
    if (this.#link._isDuplex && this.#token && event.id !== AUTH_ID) return;
    const { session, node, user = null, limits, heartbeat = 30, channels = [] } = event;
    const { name, transport } = this.state;
    this.#desk._open(this.#link, limits);
    this.#alarms.clear('state');
    this.#beat(heartbeat * 1000);
    this.#ping();
    this.#expiresAt(event.expires);
    if (name === 'connecting') {
      this.#welcomedAt = now();
      if (transport === 'websocket') this.#turn = 0;
      else this.#probeLater();
    }
    this.#enter({ name: 'connected', transport, session, node, user });
    if (name !== 'connecting') return;
    for (const channel of channels) this.#given(channel);
    for (const it of this.subscriptions.values()) if (!channels.includes(it.channel)) this._enter(it);
  }

  /** A channel that the server subscribes to: where it was left before, it has to be entered there. */
  #given(channel) {
    let subscription = this.subscriptions.get(channel);
    if (!subscription) {
      subscription = new Subscription(this, channel, {});
      this.subscriptions.set(channel, subscription);
      this._emit('subscription', subscription);
    }
    if (!subscription._isWanting && subscription.state !== 'paused') return;
    this._pause(subscription);
    this._enter(subscription);
  }

  #unsubscribed(subscription, event) {
    if (!subscription) return;
    if (event.code !== GAP) {
      this.#end(subscription, event);
      return;
    }
    subscription._interrupted(event);
    this.#alarms.set(event.channel, backoffMs(0, this.#options.backoff), () => this._enter(subscription));
  }

  #failed(event) {
    const error = new FanfareError(event);
    this._emit('error', error);
    if (event.id !== AUTH_ID) return;
    if (event.code === UNAUTHORIZED) this.#token = undefined;
    // Refused on the way in, the server hangs up by itself; where it lets in anonymous clients too, that is not what was asked for.
    if (this.state.name === 'connected') this.#refreshLater(REFRESH_AGAIN_MS);
    else this.#lost(event);
  }

  // --- Signs of life ---

  /** A browser hides WebSocket pings from its page, so the sign of life is the protocol's own `ping`. */
  #beat(heartbeatMs) {
    const { pongMs, pingMs } = this.#options;
    // One-way links are told of each heartbeat.
    const silenceMs = this.#link._isDuplex ? Math.min(pingMs, heartbeatMs) : heartbeatMs + pongMs;
    const look = () => {
      const leftMs = silenceMs - (now() - this.#heardAt);
      this.#alarms.set('beat', leftMs > 0 ? leftMs : silenceMs, look);
      if (leftMs > 0) return;
      this.#ping();
      if (!this.#link._isDuplex && this.#link._isProven) this.#lost({ reason: 'silence' });
    };
    look();
  }

  /** Judged against a ping that left: a browser may hold timers back for minutes in a hidden tab. */
  #ping() {
    if (!this.#link._isDuplex || this.#alarms.has('pong')) return;
    this.#link._send(PING);
    this.#alarms.set('pong', this.#options.pongMs, () => this.#lost({ reason: 'silence' }));
  }

  /** Events of the browser; `options.network` stands in for it elsewhere. */
  #watchWorld() {
    const { network = globalThis } = this.#options;
    this.#world = new AbortController();
    const { signal } = this.#world;
    const look = () => {
      if (this.state.name === 'connected') this.#ping();
      else if (this.state.name === 'waiting' && !this.state.isTold && !this.#isOffline) this.#wait(backoffMs(0, this.#options.backoff));
    };
    for (const [target, type] of [[network, 'online'], [network, 'offline'], [globalThis.document, 'visibilitychange']]) {
      target?.addEventListener?.(type, look, { signal });
    }
  }

  #wait(ms) {
    this.#alarms.set('state', ms, () => this.#open());
  }

  get #isOffline() {
    return (this.#options.network ?? globalThis.navigator)?.onLine === false;
  }

  /** While a WebSocket was refused, looks now and then whether one is let through by now. */
  #probeLater() {
    const { transports, probeMs, welcomeMs } = this.#options;
    if (transports[0] !== 'websocket') return;
    this.#alarms.set('probe', probeMs * (0.5 + Math.random()), () => {
      const link = this.#link;
      // One at a time: a browser slows down pages whose WebSockets fail too often.
      const end = (isThrough) => {
        probe._close();
        if (this.#link !== link) return;
        if (isThrough) {
          this.#turn = 0;
          this.#lost({ code: 1001, reason: 'websocket', after: 0 });
        } else {
          this.#probeLater();
        }
      };
      // An answer, not just an upgrade: some proxies take one and let nothing through.
      const port = { _opened: () => probe._send(PING), _heard: () => end(true), _ended: () => end() };
      const probe = new SocketLink(this.#url, port, this.#options);
      this.#alarms.set('probe', welcomeMs, () => end());
    });
  }

  // --- Tokens ---

  #clockIs(time) {
    this.#clockOff = time - Date.now();
    this.#expiresAt(this.#expires);
  }

  #expiresAt(expires) {
    this.#expires = expires;
    this.#alarms.clear('refresh');
    if (expires && this.#options.getToken) this.#refreshLater(expires * 1000 - Date.now() - this.#clockOff);
  }

  /** Some time before the end, and not all clients at once. */
  #refreshLater(validMs) {
    const leftMs = Math.max(REFRESH_LEFT_MS, validMs);
    const leadMs = Math.min(REFRESH_LEAD_MS, leftMs / 4) * (1 + Math.random());
    this.#alarms.set('refresh', leftMs - leadMs, () => {
      this.#token = undefined;
      this.#withToken(() => {
        if (this.#link._isDuplex) this.#authenticate();
        else this.#link._renew(this.#token);
      });
    });
  }

  // --- The end of a connection ---

  #lost(close) {
    const { getToken, backoff } = this.#options;
    const { code = 1006, reason, reconnect = !FINAL_CLOSES.includes(code), after } = this.#closing ?? close;
    const isAuthProblem = code === UNAUTHORIZED;
    if (isAuthProblem) this.#token = undefined;
    if (isAuthProblem ? !getToken : !reconnect) {
      this.#closed({ code, reason });
      return;
    }
    if (!this.#link?._isProven && !isAuthProblem) this.#turn += 1;
    this.#leave({ code, reason });
    this.#desk._lost();
    if (now() - this.#welcomedAt >= STABLE_MS) this.#attempt = 0;
    this.#welcomedAt = undefined;
    // The server's own wait is already jittered: it spreads the clients of a draining node.
    const isTold = !isAuthProblem && after !== undefined;
    const ownMs = this.#isOffline ? backoff.maxMs : backoffMs(this.#attempt, backoff);
    const waitMs = isTold ? after : ownMs;
    this.#attempt += 1;
    this.#enter({ name: 'waiting', code, reason, waitMs, isTold });
    this.#wait(waitMs);
  }

  #closed(close) {
    if (this.state.name === 'closed') return;
    this.#world.abort();
    this.#leave(close);
    this.#turn = this.#attempt = 0;
    this.#enter({ name: 'closed', ...close });
    this.#desk._close(close);
  }

  #leave(close) {
    this.#link?._close();
    this.#link = undefined;
    this.#alarms.clear();
    for (const it of this.subscriptions.values()) it._interrupted(close);
  }
}

/** 128 random bits: nobody else makes the same. */
const randomKey = () => crypto.getRandomValues(new Uint32Array(4)).join('-');
