// Watchlists: who signs in is told who of it is there, on whichever node of the cluster.

import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { afterEach, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { app, backend, client, closeAll, cluster, fresh, heard, node, other } from "./scene.mjs";

afterEach(closeAll);

/** Signs in as a user with a watchlist; `told` is what it was told of each user, in order, and `until` waits for the last of it. */
async function watching(how) {
  const pusher = await client(how);
  const events = new EventEmitter();
  const told = {};
  for (const name of ["online", "offline"]) {
    pusher.user.watchlist.bind(name, ({ user_ids }) => {
      for (const id of user_ids) (told[id] ??= []).push(name);
      events.emit("more");
    });
  }
  const until = async (expected) => {
    const signal = AbortSignal.timeout(60_000);
    const isSo = () => Object.entries(expected).every(([id, name]) => told[id]?.at(-1) === name);
    while (!isSo()) await once(events, "more", { signal }).catch(() => assert.deepEqual(told, expected));
  };
  pusher.signin();
  await pusher.user.signinDonePromise;
  return { pusher, told, until };
}

/** Waits until so many connections of a user are there: its library does not tell when it hears its own channel. */
async function there(user, connections, application = app) {
  const asked = { path: `/channels/%23server-to-user-${user}`, params: { info: "subscription_count" } };
  for (;;) {
    const answer = await (await backend(application).get(asked)).json();
    if (answer.subscription_count === connections) return;
    await setTimeout(50); // Between two questions, not for what is waited for.
  }
}

/** Signs in and is there. */
async function present(user, at) {
  const { pusher } = await watching({ user, at });
  await there(user, 1);
  return pusher;
}

test("who signs in is told who of its watchlist is there, and who comes and goes, on whichever node", async () => {
  const [bob, eve, kim] = [fresh("bob"), fresh("eve"), fresh("kim")];
  const first = await present(bob, node(2));
  const ann = await watching({ user: fresh("ann"), at: node(1), watchlist: [bob, eve, kim] });
  await ann.until({ [bob]: "online", [eve]: "offline", [kim]: "offline" });
  const kims = await present(kim, node(3));
  await ann.until({ [kim]: "online" });
  // With one of its connections a user is there.
  const second = await watching({ user: bob, at: node(3), watchlist: [bob] });
  await second.until({ [bob]: "online" });
  await there(bob, 2);
  first.disconnect();
  kims.disconnect();
  await ann.until({ [kim]: "offline" });
  assert.deepEqual(ann.told[bob], ["online"]);
  second.pusher.disconnect();
  await ann.until({ [bob]: "offline" });
  assert.deepEqual(ann.told[eve], ["offline"], "said once");
});

test("with more than a hundred on a watchlist the first hundred are taken, and it is told so with 4302", async () => {
  const ids = [...Array(101).keys()].map((n) => fresh(`u${n}-`));
  await present(ids[100], node(2));
  const ann = await client({ user: fresh("ann"), at: node(1), watchlist: ids });
  const told = [];
  ann.user.watchlist.bind("online", ({ user_ids }) => told.push(...user_ids));
  ann.user.watchlist.bind("offline", ({ user_ids }) => told.push(...user_ids));
  const error = heard(ann.connection, "error");
  ann.signin();
  await ann.user.signinDonePromise;
  const { data } = await error;
  assert.equal(data.code, 4302);
  assert.ok(data.message.includes(ids[99]) && !data.message.includes(ids[100]), data.message);
  const online = heard(ann.user.watchlist, "online");
  await present(ids[99], node(3));
  assert.deepEqual((await online).user_ids, [ids[99]]);
  assert.equal(new Set(told).size, 100);
  assert.ok(!told.includes(ids[100]));
  assert.equal(ann.connection.state, "connected");
});

test("a user of another application is another user", async () => {
  const bob = fresh("bob");
  const theirs = await watching({ user: bob, application: other, at: node(1), watchlist: [bob] });
  await there(bob, 1, other);
  await theirs.until({ [bob]: "online" });
  const before = [...theirs.told[bob]];
  const ann = await watching({ user: fresh("ann"), at: node(1), watchlist: [bob] });
  await ann.until({ [bob]: "offline" });
  await present(bob, node(2));
  await ann.until({ [bob]: "online" });
  assert.deepEqual([ann.told[bob], theirs.told[bob]], [["offline", "online"], before]);
});

test("the users of a node that is killed are gone, and are there again when they come back", async () => {
  const bob = fresh("bob");
  const ann = await watching({ user: fresh("ann"), at: node(1), watchlist: [bob] });
  await present(bob, node(3));
  await ann.until({ [bob]: "online" });
  await cluster("kill-node", "3");
  // Nobody says goodbye: those who are left find out that it is silent.
  await ann.until({ [bob]: "offline" });
  await cluster("restart-node", "3");
  await ann.until({ [bob]: "online" });
});
