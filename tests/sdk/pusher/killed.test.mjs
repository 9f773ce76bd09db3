// The unmodified clients of Pusher while the node that holds them is killed: they come back by themselves, to another one, and with
// all that they had subscribed to.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import Echo from "laravel-echo";
import Pusher from "pusher-js";
import { app, backend, closeAll, cluster, connecting, fresh, gathered, heard, node, options } from "./scene.mjs";

afterEach(closeAll);

/** The node that holds the only connection, once those of the tests before are gone. */
async function holder() {
  const signal = AbortSignal.timeout(30_000);
  for (;;) {
    const counts = await Promise.all([1, 2, 3].map(async (n) => (await (await fetch(new URL("/status", node(n)), { signal })).json()).connections));
    if (counts.reduce((sum, it) => sum + it) === 1) return counts.indexOf(1) + 1;
    await setTimeout(50, undefined, { signal }); // Between two questions, not for what is waited for.
  }
}

/** A backend that asks a node other than this one. */
const elsewhere = (victim) => backend(app, { at: new URL(process.env[`CLUSTER_NODE_${(victim % 3) + 1}_INTERNAL`]) });

test("a client whose node is killed comes back to all its channels, and hears what a cache channel was told meanwhile", async () => {
  const names = ["news-", "private-", "presence-", "private-cache-"].map(fresh);
  const signer = backend();
  const sockets = new Set();
  let mayComeBack = Promise.resolve();
  const customHandler = async ({ socketId, channelName }, done) => {
    sockets.add(socketId);
    await mayComeBack;
    const said = channelName.startsWith("presence-") ? { user_id: "ann", user_info: { name: "ann" } } : undefined;
    done(null, signer.authorizeChannel(socketId, channelName, said));
  };
  const ann = connecting(app.key, { ...options({ user: "ann" }), channelAuthorization: { customHandler } });
  const all = names.map((name) => ann.subscribe(name));
  const subscribed = () => Promise.all(all.map((channel) => heard(channel, "pusher:subscription_succeeded", 30_000)));
  await subscribed();
  const [inNews, inPrivate, inHall, inCache] = all.map((channel) => gathered(channel, "e"));
  const victim = await holder();
  const application = elsewhere(victim);
  await application.trigger(names, "e", 1);
  for (const { until } of [inNews, inPrivate, inHall, inCache]) await until(1);

  const back = subscribed();
  let release;
  mayComeBack = new Promise((resolve) => { release = resolve; });
  const again = heard(ann.connection, "connected", 30_000);
  await cluster("kill-node", String(victim));
  await again;
  // What needs a signature is not subscribed to before `release`: of these the cache channel alone tells who missed it.
  await application.trigger(names.slice(1), "e", 2);
  release();
  await back;
  await application.trigger(names, "e", 3);
  assert.deepEqual((await inCache.until(3)).map((it) => it.data), [1, 2, 3]);
  assert.deepEqual((await inPrivate.until(2)).map((it) => it.data), [1, 3], "each once");
  assert.deepEqual((await inHall.until(2)).map((it) => it.data), [1, 3]);
  assert.deepEqual((await inNews.until(2)).map((it) => it.data), [1, 3]);
  assert.deepEqual(Object.keys(all[2].members.members), ["ann"], "who comes back is there once");
  assert.equal(sockets.size, 2, "another socket has signatures of its own");
  await cluster("restart-node", String(victim));
});

test("Laravel Echo comes back from a killed node, with its whispers and its members", async () => {
  const [room, hall] = [fresh("room-"), fresh("hall-")];
  const ann = connecting(app.key, options({ user: "ann" }));
  const echo = new Echo({ broadcaster: "pusher", key: app.key, Pusher, client: ann });
  const shipped = [];
  let here = [];
  const inRoom = echo.private(room).listen(".OrderShipped", ({ id }) => shipped.push(id));
  echo.join(hall).here((members) => { here = members; });
  await Promise.all([`private-${room}`, `presence-${hall}`].map((name) => heard(ann.channel(name), "pusher:subscription_succeeded")));
  const victim = await holder();
  const application = elsewhere(victim);
  const before = gathered(ann.channel(`private-${room}`), "OrderShipped");
  await application.trigger(`private-${room}`, "OrderShipped", { id: 1 });
  await before.until(1);
  here = [];
  const back = [`private-${room}`, `presence-${hall}`].map((name) => heard(ann.channel(name), "pusher:subscription_succeeded", 30_000));
  await cluster("kill-node", String(victim));
  await Promise.all(back);
  await application.trigger(`private-${room}`, "OrderShipped", { id: 2 });
  await before.until(2);
  assert.deepEqual([shipped, here], [[1, 2], [{ name: "ann" }]]);
  const bob = new Echo({ broadcaster: "pusher", key: app.key, Pusher, client: connecting(app.key, options({ user: "bob" })) });
  const heardByAnn = new Promise((resolve) => inRoom.listenForWhisper("typing", resolve));
  await new Promise((resolve) => bob.private(room).subscribed(resolve));
  bob.private(room).whisper("typing", { by: "bob" });
  assert.deepEqual(await heardByAnn, { by: "bob" });
  await cluster("restart-node", String(victim));
});
