/** Any JSON. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** A place in a channel's stream. */
export interface Position {
  epoch: string;
  offset: number;
}

export interface Member {
  user: string | null;
  session: string;
  info: Json;
}

/** Somebody who published as an authenticated client. */
export interface Publisher {
  user: string | null;
  info?: Json;
}

export interface Message<T = Json> {
  type: 'message';
  channel: string;
  data: T;
  /** Its place, on a channel with history: what to keep, to go on from by `since`. */
  epoch?: string;
  offset?: number;
  from?: Publisher;
  /** Replayed: it was published while this client was away. */
  recovered?: true;
  /** So many older ones gave way to it. */
  conflated?: number;
}

/**
 * Messages are gone, or may be. `lost`: history no longer had them, so reload the state of the channel. `no_history`: the channel keeps
 * none, and the connection was away. `overflow`: the loop was slower than a channel without history, and `missed` gave way.
 */
export interface Gap {
  type: 'gap';
  channel: string;
  cause: 'lost' | 'no_history' | 'overflow';
  position?: Position;
  missed?: number;
}

export interface Presence {
  type: 'joined' | 'left';
  channel: string;
  member: Member;
}

export interface SubscriptionEvents<T = Json> {
  /** Live from here on. `recovered`: it came back, and has missed nothing. */
  subscribed: { channel: string; epoch?: string; offset?: number; recovered: boolean };
  message: Message<T>;
  gap: Gap;
  joined: Presence & { type: 'joined' };
  left: Presence & { type: 'left' };
  /** Not live for now; the client is mending it. 4410: the server lost the place. */
  interrupted: { channel: string; code: number; reason: string };
  /** For good. Without a code it was the application's doing. */
  unsubscribed: { channel: string; code?: number; reason?: string; message?: string };
}

export interface SubscriptionOptions {
  /** Where to go on: what was kept of the last message that was processed. */
  since?: Position;
  /** The first time, hear so many of the last messages. */
  rewind?: number;
  /** Ask for `joined` and `left`. */
  presence?: boolean;
  /** Events that wait for a slow loop, at most (1024). */
  bufferMax?: number;
}

export interface PublishOptions {
  /** Whoever publishes the same key again publishes nothing. One is made up unless given; `null` for none, and no second try. */
  key?: string | null;
  /** `false`: this connection does not hear it. */
  echo?: boolean;
  /** `false`: without waiting for those before it on the channel, which may come later then (true). */
  ordered?: boolean;
  timeoutMs?: number;
}

export interface Published {
  channel: string;
  epoch?: string;
  offset?: number;
}

export interface HistoryOptions {
  since?: Position;
  limit?: number;
  reverse?: boolean;
  timeoutMs?: number;
}

export interface History<T = Json> extends Position {
  channel: string;
  messages: { offset: number; data: T; from?: Publisher }[];
}

export interface Present {
  channel: string;
  users: number;
  connections: number;
  members?: Member[];
}

export interface Subscription<T = Json> extends AsyncIterable<Message<T> | Gap | Presence> {
  readonly channel: string;
  /** `paused`: a loop is full, and history waits for it. */
  readonly state: 'subscribing' | 'subscribed' | 'paused' | 'unsubscribed';
  /** That of the last message that was told. */
  readonly position?: Position;
  /** Gives back what takes the listener away. */
  on<K extends keyof SubscriptionEvents<T>>(type: K, listener: (event: SubscriptionEvents<T>[K]) => void): () => void;
  once<K extends keyof SubscriptionEvents<T>>(type: K): Promise<SubscriptionEvents<T>[K]>;
  publish(data: T, options?: PublishOptions): Promise<Published>;
  history(options?: HistoryOptions): Promise<History<T>>;
  presence(options?: { members?: boolean; timeoutMs?: number }): Promise<Present>;
  unsubscribe(): void;
  [Symbol.asyncIterator](): AsyncIterableIterator<Message<T> | Gap | Presence>;
}

export type Transport = 'websocket' | 'sse' | 'poll';

export type State =
  | { name: 'connecting'; transport: Transport }
  | { name: 'connected'; transport: Transport; session?: string; node?: string; user: string | null }
  /** `isTold`: the server has named the wait. */
  | { name: 'waiting'; code: number; reason: string; waitMs: number; isTold: boolean }
  | { name: 'closed'; code?: number; reason?: string };

export interface FanfareEvents {
  state: State;
  /** The server subscribed the client to a channel, such as its personal one. */
  subscription: Subscription;
  /** What no call can be told of: `getToken` failed, or a token was refused. */
  error: Error;
}

export interface FanfareOptions {
  token?: string;
  /** Asked whenever a token is needed: at first, before one expires, after one was refused. Nothing: there is none, stop. */
  getToken?: () => string | null | undefined | Promise<string | null | undefined>;
  /** In the order in which they are tried (all three). */
  transports?: Transport[];
  /** Waits are drawn from nothing to `baseMs` (500), which doubles up to `maxMs` (20,000). */
  backoff?: { baseMs?: number; maxMs?: number };
  /** How long a connection may take (10,000). */
  welcomeMs?: number;
  /** After so much silence the server is asked whether it is there (25,000, and no more than its own heartbeat) … */
  pingMs?: number;
  /** … and has so long to answer (10,000). */
  pongMs?: number;
  /** How long a command is tried (60,000). Stay under the server's `idempotency_ttl_seconds`. */
  timeoutMs?: number;
  /** Commands that wait or are under way, at most (1024). */
  queueMax?: number;
  /** No more is written while the socket holds so many bytes (1 MiB). */
  bufferedBytesMax?: number;
  /** Without the WebSocket that comes first, how often to look whether one is let through by now (60,000, half as much or half more). */
  probeMs?: number;
  /** In place of `globalThis.WebSocket`, such as that of `ws`. */
  WebSocket?: unknown;
  fetch?: typeof fetch;
  /** What tells `online` and `offline`, and `onLine`, where there is no window. */
  network?: EventTarget & { onLine?: boolean };
}

export class Fanfare {
  /** Connects at once. `url` is the gateway's: `https://example.org`, with or without `/ws`. */
  constructor(url: string | URL, options?: FanfareOptions);
  readonly state: State;
  readonly subscriptions: ReadonlyMap<string, Subscription>;
  on<K extends keyof FanfareEvents>(type: K, listener: (event: FanfareEvents[K]) => void): () => void;
  once<K extends keyof FanfareEvents>(type: K): Promise<FanfareEvents[K]>;
  /** The application's one subscription to the channel; `options` are of the first call. */
  subscribe<T = Json>(channel: string, options?: SubscriptionOptions): Subscription<T>;
  publish(channel: string, data: unknown, options?: PublishOptions): Promise<Published>;
  history<T = Json>(channel: string, options?: HistoryOptions): Promise<History<T>>;
  presence(channel: string, options?: { members?: boolean; timeoutMs?: number }): Promise<Present>;
  /** Ends it: what was not answered fails. */
  close(): void;
  /** Again, after it was closed; subscriptions go on where they were. */
  connect(): void;
}

export class FanfareError extends Error {
  /** The server's number, or 0: `timeout`, `queue_full`, `disconnected`, `closed`. */
  readonly code: number;
  readonly reason: string;
  readonly retryAfterMs?: number;
  /** It was sent, and whether it was done nobody knows. */
  readonly isUncertain: boolean;
}
