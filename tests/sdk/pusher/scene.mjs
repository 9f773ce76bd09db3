// What the tests share: clients of the real libraries on the cluster under test, and ways to wait for what they hear.
//
// Clients connect by nginx, the application asks one node. Both are what scripts/sdk-test starts.

import { execFile } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { promisify } from "node:util";
import Pusher from "pusher-js";
import Backend from "pusher";

export const url = new URL(process.env.CLUSTER_URL);
export const internal = new URL(process.env.CLUSTER_NODE_2_INTERNAL);
/** A node of the cluster, past the proxy. */
export const node = (n) => new URL(process.env[`CLUSTER_NODE_${n}_URL`]);
export const app = { id: "4711", key: "shop-key", secret: "shop-secret" };
export const other = { id: "4712", key: "other-key", secret: "other-secret" };

/** The application's backend; `at` is whom it asks. */
export function backend({ id, key, secret } = app, { at = internal, ...how } = {}) {
  return new Backend({ appId: id, key, secret, host: at.hostname, port: at.port, useTLS: false, ...how });
}

/** A command of the cluster. */
export const cluster = (...words) => promisify(execFile)(new URL("../../../scripts/cluster", import.meta.url).pathname, words);

const open = new Set();

/** Options of a client; `user` is who it says it is on presence channels and when it signs in, `at` where it connects. */
export function options({ user, application = app, watchlist, at = url } = {}) {
  const signer = backend(application);
  return {
    cluster: "none",
    wsHost: at.hostname,
    wsPort: Number(at.port),
    forceTLS: false,
    enabledTransports: ["ws"],
    enableStats: false,
    channelAuthorization: {
      customHandler: ({ channelName, socketId }, done) => {
        const said = channelName.startsWith("presence-") ? { user_id: user, user_info: { name: user } } : undefined;
        done(null, signer.authorizeChannel(socketId, channelName, said));
      },
    },
    userAuthentication: {
      customHandler: ({ socketId }, done) => {
        done(null, signer.authenticateUser(socketId, { id: user, user_info: { name: user }, watchlist }));
      },
    },
  };
}

/** A client that is about to connect. */
export function connecting(key, how) {
  return closing(new Pusher(key, how));
}

/** A client that ends with its test. */
export function closing(pusher) {
  open.add(pusher);
  return pusher;
}

/** A client that is connected. */
export async function client(how = {}) {
  const pusher = connecting((how.application ?? app).key, options(how));
  await heard(pusher.connection, "connected");
  return pusher;
}

/** Lets every client go, so that the test can end. */
export function closeAll() {
  for (const pusher of open) pusher.disconnect();
  open.clear();
}

/** The next event of this name, of whatever can be bound to. */
export function heard(source, name, within = 10_000) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${name} within ${within} ms`)), within);
    const listener = (data) => {
      clearTimeout(timer);
      source.unbind(name, listener);
      resolve(data);
    };
    source.bind(name, listener);
  });
}

/** Subscribes, and waits until that is so. */
export async function subscribed(pusher, name) {
  const channel = pusher.subscribe(name);
  const refused = heard(channel, "pusher:subscription_error").then((error) => {
    throw Object.assign(new Error(`refused: ${JSON.stringify(error)}`), { refusal: error });
  });
  refused.catch(() => {});
  const members = heard(channel, "pusher:subscription_succeeded");
  members.catch(() => {});
  await Promise.race([members, refused]);
  return channel;
}

/** Everything that comes on a channel under a name, in order; `until(n)` waits for that many. */
export function gathered(channel, name) {
  const events = new EventEmitter();
  const all = [];
  channel.bind(name, (data, metadata) => {
    all.push({ data, user: metadata?.user_id });
    events.emit("more");
  });
  const until = async (count) => {
    const signal = AbortSignal.timeout(10_000);
    while (all.length < count) await once(events, "more", { signal });
    return all;
  };
  return { all, until };
}

/** A name that no other test has. */
let names = 0;
export const fresh = (prefix) => `${prefix}${process.pid}-${names++}`;
