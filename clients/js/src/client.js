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
const REFRESH_GAP_MS = 5_000;
/** Closes after which the same client would meet the same answer. */
const FINAL_CLOSES = new Set([1000, 1002, 1003, 1007, 1009, 4400, 4403]);
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
  /** Whether a ping is out, and nothing was heard since. */
  #isAsked = false;
  /** The server's clock less our own, in milliseconds. */
  #clockOff = 0;
  #expires;
  #refreshedAt = -Infinity;
  /** Namespaces that keep no history take no keys. */
  #keyless = new Set();

  constructor(url, options = {}) {
    super();
    const address = new URL(url, globalThis.location?.href);
    this.#url = address.href.replace(/^ws/, 'http').replace(/[?#].*$/, '').replace(/\/(ws\/?)?$/, '');
    this.#options = { ...DEFAULTS, ...options, backoff: { ...DEFAULTS.backoff, ...options.backoff } };
    this.#token = options.token;
    this.#desk = new Desk(this.#options, this.#alarms);
    this.connect();
  }

  /** Again, after it was closed. */
  connect() {
    if (this.state.name !== 'closed') return;
    this.#desk.reopen();
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
    this.enter(subscription);
    return subscription;
  }

  /**
   * Resolves when the broker has taken it. Said again, under one key, over lost connections and while the broker is away, until
   * that is known or its time is over.
   */
  publish(channel, data = null, { key, ordered = true, timeoutMs, ...more } = {}) {
    const [namespace] = channel.split(':');
    const makesKey = key === undefined && !this.#keyless.has(namespace);
    const command = { type: 'publish', channel, data, ...more, key: makesKey ? randomKey() : key ?? undefined };
    const asked = this.#ask(command, { repeat: Boolean(command.key), lane: ordered ? channel : undefined, timeoutMs });
    return asked.then((answer) => {
      if (more.echo === false) this.subscriptions.get(channel)?.published(answer);
      return answer;
    }, async (error) => {
      if (error.code !== BAD_REQUEST || !makesKey) throw error;
      // Perhaps for the key: then not again in this namespace.
      const answer = await this.publish(channel, data, { key: null, ordered, timeoutMs, ...more });
      this.#keyless.add(namespace);
      return answer;
    });
  }

  history(channel, { timeoutMs, ...more } = {}) {
    return this.#ask({ type: 'history', channel, ...more }, { repeat: true, timeoutMs });
  }

  presence(channel, { timeoutMs, ...more } = {}) {
    return this.#ask({ type: 'presence', channel, ...more }, { repeat: true, timeoutMs });
  }

  #ask(command, options) {
    return new Promise((resolve, reject) => {
      this.#desk.ask(command, (error, answer) => (error ? reject(error) : resolve(answer)), options);
    });
  }

  // --- For subscriptions ---

  enter(subscription) {
    if (this.state.name !== 'connected' || subscription.state !== 'subscribing') return;
    const then = (error) => {
      if (!error || subscription.expects !== id) return;
      if (error.code === CONFLICT) {
        this.#desk.ask({ type: 'unsubscribe', channel: subscription.channel }, () => {}, { once: true });
        this.enter(subscription);
      } else {
        this.#end(subscription, error);
      }
    };
    const id = this.#desk.ask(subscription.command, then, { once: true });
    subscription.expects = id;
  }

  leave(subscription) {
    if (this.subscriptions.get(subscription.channel) !== subscription) return;
    const { state } = subscription;
    this.#end(subscription);
    if (state !== 'paused') this.pause(subscription);
  }

  pause({ channel }) {
    if (this.state.name === 'connected') this.#desk.ask({ type: 'unsubscribe', channel }, () => {}, { once: true });
  }

  #end(subscription, event) {
    this.subscriptions.delete(subscription.channel);
    subscription.ended(event);
  }

  // --- The connection ---

  #enter(state) {
    this.state = state;
    this.emit('state', state);
  }

  /** Calls `then` unless another connection, or none, is wanted by then. */
  async #withToken(then) {
    const { getToken } = this.#options;
    const { state } = this;
    if (getToken && !this.#token) {
      let token;
      try {
        token = await getToken();
      } catch (error) {
        if (this.state !== state) return;
        this.emit('error', error);
        if (state.name === 'connecting') this.#lost({ code: 1006, reason: 'no_token' });
        else this.#refreshLater();
        return;
      }
      if (this.state !== state) return;
      if (!token) {
        this.#closed({ code: UNAUTHORIZED, reason: 'unauthorized' });
        return;
      }
      this.#token = token;
    }
    then();
  }

  #open() {
    this.#closing = undefined;
    const { transports, welcomeMs } = this.#options;
    // A WebSocket has two tries: one may be bad luck.
    const turns = transports.flatMap((it) => (it === 'websocket' ? [it, it] : [it]));
    const transport = turns[this.#turn % turns.length];
    this.#enter({ name: 'connecting', transport });
    this.#alarms.set('state', welcomeMs, () => this.#lost({ code: 1006, reason: 'no_welcome' }));
    this.#withToken(() => {
      const port = {
        opened: () => this.#token && this.#authenticate(),
        heard: (events) => link === this.#link && this.#heard(events),
        ended: (close) => link === this.#link && this.#lost(close),
        position: (channel) => this.subscriptions.get(channel)?.position,
      };
      let link;
      try {
        link = transport === 'websocket'
          ? new SocketLink(this.#url, port, this.#options)
          : new HttpLink(this.#url, port, this.#options, transport, this.#token);
      } catch (error) {
        this.emit('error', error);
        this.#lost({ code: 1006, reason: 'unsupported' });
        return;
      }
      this.#link = link;
    });
  }

  #authenticate() {
    this.#link.send(JSON.stringify({ type: 'auth', id: AUTH_ID, token: this.#token }));
  }

  #heard(events) {
    this.#heardAt = now();
    this.#alarms.clear('pong');
    this.#isAsked = false;
    const link = this.#link;
    for (const event of events) {
      if (this.#link !== link) return;
      this.#handle(event);
    }
  }

  #handle(event) {
    const subscription = this.subscriptions.get(event.channel);
    const isAnswer = this.#desk.settle(event);
    switch (event.type) {
      case 'welcome': this.#welcomed(event); break;
      case 'refreshed': this.#expiresAt(event.expires); break;
      case 'subscribed': subscription?.entered(event); break;
      case 'unsubscribed': if (event.code !== undefined) this.#unsubscribed(subscription, event); break;
      case 'message': subscription?.heard(event); break;
      case 'joined':
      case 'left': if (subscription?.state === 'subscribed') subscription.emit(event.type, event); break;
      case 'pong': this.#clockIs(event.time); break;
      case 'closing': this.#closing = event; break;
      case 'error': if (!isAnswer) this.#failed(event); break;
      default: // A later version's word; the protocol asks to leave it alone.
    }
  }

  #welcomed(event) {
    // Before the token was looked at, where anonymous clients are let in too.
    if (this.#link.isDuplex && this.#token && event.id !== AUTH_ID) return;
    const { session, node, user, limits, heartbeat = 30, channels = [] } = event;
    const isNews = this.state.name === 'connecting';
    const { transport } = this.state;
    this.#desk.open(this.#link, limits);
    if (isNews) {
      this.#welcomedAt = now();
      if (transport === 'websocket') this.#turn = 0;
      else this.#probeLater();
    }
    this.#enter({ name: 'connected', transport, session, node, user: user ?? null });
    this.#alarms.clear('state');
    this.#beat(heartbeat * 1000);
    this.#link.isDuplex && this.#ping();
    this.#expiresAt(event.expires);
    if (!isNews) return;
    for (const channel of channels) this.#given(channel);
    for (const it of this.subscriptions.values()) if (!channels.includes(it.channel)) this.enter(it);
  }

  /** A channel that the server subscribes to: where it was left before, it has to be entered there. */
  #given(channel) {
    let subscription = this.subscriptions.get(channel);
    if (!subscription) {
      subscription = new Subscription(this, channel, {});
      this.subscriptions.set(channel, subscription);
      this.emit('subscription', subscription);
    }
    if (!subscription.isWanting && subscription.state !== 'paused') return;
    this.pause(subscription);
    this.enter(subscription);
  }

  #unsubscribed(subscription, event) {
    if (!subscription) return;
    if (event.code !== GAP) {
      this.#end(subscription, event);
      return;
    }
    subscription.interrupted(event);
    this.#alarms.set(event.channel, backoffMs(0, this.#options.backoff), () => this.enter(subscription));
  }

  #failed(event) {
    const error = new FanfareError(event);
    this.emit('error', error);
    if (event.id !== AUTH_ID) return;
    if (event.code === UNAUTHORIZED) this.#token = undefined;
    // Refused on the way in, the server hangs up by itself; where it lets in anonymous clients too, that is not what was asked for.
    if (this.state.name === 'connected') this.#refreshLater();
    else this.#lost(event);
  }

  // --- Signs of life ---

  /** A browser hides WebSocket pings from its page, so the sign of life is the protocol's own `ping`. */
  #beat(heartbeatMs) {
    const { pongMs, pingMs } = this.#options;
    // One-way links are told of each heartbeat.
    const silenceMs = this.#link.isDuplex ? Math.min(pingMs, heartbeatMs) : heartbeatMs + pongMs;
    const look = () => {
      const quietMs = now() - this.#heardAt;
      if (quietMs < silenceMs) this.#alarms.set('beat', silenceMs - quietMs, look);
      else if (this.#link.isDuplex) {
        this.#ping();
        this.#alarms.set('beat', silenceMs, look);
      } else if (this.#link.isProven) this.#lost({ code: 1006, reason: 'silence' });
      else this.#alarms.set('beat', silenceMs, look);
    };
    this.#alarms.set('beat', silenceMs, look);
  }

  /** Judged against a ping that left: a browser may hold timers back for minutes in a hidden tab. */
  #ping() {
    if (this.#isAsked) return;
    this.#isAsked = true;
    this.#link.send(PING);
    this.#alarms.set('pong', this.#options.pongMs, () => this.#lost({ code: 1006, reason: 'silence' }));
  }

  /** Events of the browser; `options.network` stands in for it elsewhere. */
  #watchWorld() {
    const { network = globalThis } = this.#options;
    this.#world = new AbortController();
    const { signal } = this.#world;
    const look = () => {
      if (this.state.name === 'connected') this.#link.isDuplex && this.#ping();
      else if (this.state.name === 'waiting' && !this.state.isTold && !this.#isOffline) this.#wait(backoffMs(0, this.#options.backoff));
    };
    network.addEventListener?.('online', look, { signal });
    network.addEventListener?.('offline', look, { signal });
    globalThis.document?.addEventListener('visibilitychange', look, { signal });
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
    if (!transports.includes('websocket')) return;
    this.#alarms.set('probe', probeMs * (0.5 + Math.random()), () => {
      const link = this.#link;
      // One at a time: a browser slows down pages whose WebSockets fail too often.
      const end = (isThrough) => {
        probe.close();
        if (this.#link !== link) return;
        if (isThrough) {
          this.#turn = 0;
          this.#lost({ code: 1001, reason: 'websocket', after: 0 });
        } else {
          this.#probeLater();
        }
      };
      // An answer, not just an upgrade: some proxies take one and let nothing through.
      const port = { opened: () => probe.send(PING), heard: () => end(true), ended: () => end() };
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
    if (expires != null && this.#options.getToken) this.#refreshLater(expires * 1000 - Date.now() - this.#clockOff);
  }

  /** Some time before the end, not all clients at once, and never in a tight loop however the clocks stand. */
  #refreshLater(validMs = 0) {
    const leftMs = Math.max(0, validMs);
    const leadMs = Math.min(REFRESH_LEAD_MS, leftMs / 4) * (1 + Math.random());
    const gapMs = this.#refreshedAt + REFRESH_GAP_MS - now();
    this.#alarms.set('refresh', Math.max(leftMs - leadMs, Math.min(gapMs, leftMs || gapMs)), () => {
      this.#refreshedAt = now();
      this.#token = undefined;
      this.#withToken(() => {
        if (this.#link.isDuplex) this.#authenticate();
        else this.#link.renew(this.#token);
      });
    });
  }

  // --- The end of a connection ---

  #lost(close) {
    const link = this.#link;
    this.#link = undefined;
    link?.close();
    const { code, reason, reconnect = !FINAL_CLOSES.has(code), after } = this.#closing ?? close;
    const isAuthProblem = code === UNAUTHORIZED;
    if (isAuthProblem) this.#token = undefined;
    if (isAuthProblem ? !this.#options.getToken : !reconnect) {
      this.#closed({ code, reason });
      return;
    }
    this.#quiet(code, reason);
    this.#isAsked = false;
    this.#desk.lost();
    if (this.#welcomedAt !== undefined && now() - this.#welcomedAt >= STABLE_MS) this.#attempt = 0;
    this.#welcomedAt = undefined;
    if (!link?.isProven && !isAuthProblem) this.#turn += 1;
    // The server's own wait is already jittered: it spreads the clients of a draining node. `Retry-After` is not.
    const isTold = !isAuthProblem && (after !== undefined || close.retryAfter !== undefined);
    const { backoff } = this.#options;
    const ownMs = this.#isOffline ? backoff.maxMs : backoffMs(this.#attempt, backoff);
    const waitMs = isTold ? after ?? close.retryAfter + backoffMs(0, backoff) : ownMs;
    this.#attempt += 1;
    this.#enter({ name: 'waiting', code, reason, waitMs, isTold });
    this.#wait(waitMs);
  }

  #closed({ code, reason }) {
    if (this.state.name === 'closed') return;
    const link = this.#link;
    this.#link = undefined;
    link?.close();
    this.#world.abort();
    this.#quiet(code, reason);
    this.#turn = this.#attempt = 0;
    this.#enter({ name: 'closed', code, reason });
    this.#desk.close({ code, reason });
  }

  #quiet(code, reason) {
    this.#alarms.clear();
    for (const it of this.subscriptions.values()) it.interrupted({ code, reason });
  }
}

/** 128 random bits: nobody else makes the same. */
const randomKey = () => crypto.getRandomValues(new Uint32Array(4)).join('-');
