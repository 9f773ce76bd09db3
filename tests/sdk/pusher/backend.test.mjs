// The library of Pusher for backends in Node.js, unmodified: what it triggers is heard by the library for clients, and what it asks
// is answered.

import assert from "node:assert/strict";
import { createHmac, randomBytes } from "node:crypto";
import { afterEach, test } from "node:test";
import { app, backend, client, closeAll, connecting, fresh, gathered, heard, internal, options, subscribed } from "./scene.mjs";

afterEach(closeAll);

test("who triggers an event with its socket id does not hear it itself", async () => {
  const name = fresh("news-");
  const [ann, bob] = [await client(), await client()];
  const [byAnn, byBob] = [gathered(await subscribed(ann, name), "e"), gathered(await subscribed(bob, name), "e")];
  await backend().trigger(name, "e", 1, { socket_id: ann.connection.socket_id });
  await backend().trigger(name, "e", 2);
  assert.deepEqual((await byBob.until(2)).map((it) => it.data), [1, 2]);
  assert.deepEqual((await byAnn.until(1)).map((it) => it.data), [2]);
});

test("what is triggered on several channels, or as a batch, is heard on each; and it is told who hears it", async () => {
  const [news, hall] = [fresh("news-"), fresh("presence-")];
  const ann = await client({ user: "ann" });
  const [inNews, inHall] = [gathered(await subscribed(ann, news), "e"), gathered(await subscribed(ann, hall), "e")];
  const info = { info: "user_count,subscription_count" };
  const json = async (answer) => (await answer).json();
  assert.deepEqual(await json(backend().trigger([news, hall], "e", 1)), {});
  const told = await json(backend().trigger([hall], "e", 2, info));
  assert.deepEqual(told, { channels: { [hall]: { user_count: 1, subscription_count: 1 } } });
  const batch = [
    { channel: news, name: "e", data: 2, info: "subscription_count" },
    { channel: hall, name: "e", data: 3, socket_id: ann.connection.socket_id },
    { channel: hall, name: "e", data: { n: 4 } },
  ];
  assert.deepEqual(await json(backend().triggerBatch(batch)), { batch: [{ subscription_count: 1 }, {}, {}] });
  assert.deepEqual((await inNews.until(2)).map((it) => it.data), [1, 2]);
  assert.deepEqual((await inHall.until(3)).map((it) => it.data), [1, 2, { n: 4 }]);
  const many = [...Array(11)].map(() => ({ channel: news, name: "e", data: 1 }));
  await assert.rejects(backend().triggerBatch(many), (error) => error.status === 400);
});

test("what is encrypted reaches those who have the key, and nobody else can read it", async () => {
  const encryptionMasterKeyBase64 = randomBytes(32).toString("base64");
  const keeper = backend(app, { encryptionMasterKeyBase64 });
  const holding = {
    ...options(),
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => done(null, keeper.authorizeChannel(socketId, channelName)),
    },
  };
  const ann = connecting(app.key, holding);
  await heard(ann.connection, "connected");
  const name = fresh("private-encrypted-");
  const channel = await subscribed(ann, name);
  const inClear = gathered(channel, "secret");
  const onTheWire = [];
  ann.connection.bind("message", (event) => event.channel === name && event.event === "secret" && onTheWire.push(event.data));
  await keeper.trigger(name, "secret", { text: "é" });
  await keeper.triggerBatch([{ channel: name, name: "secret", data: { n: 2 } }]);
  assert.deepEqual((await inClear.until(2)).map((it) => it.data), [{ text: "é" }, { n: 2 }]);
  assert.deepEqual(onTheWire.map((data) => Object.keys(data).sort()), Array(2).fill(["ciphertext", "nonce"]));

  const forger = connecting(app.key, {
    ...holding,
    channelAuthorization: { customHandler: (_, done) => done(null, { auth: `${app.key}:${"0".repeat(64)}`, shared_secret: "AAAA" }) },
  });
  await heard(forger.connection, "connected");
  assert.equal((await heard(forger.subscribe(name), "pusher:subscription_error")).status, 401);
});

test("a backend asks who is where", async () => {
  const [presence, news] = [fresh("presence-"), fresh("news-")];
  await subscribed(await client({ user: "ann" }), presence);
  await subscribed(await client({ user: "bob" }), presence);
  await subscribed(await client(), news);
  const ask = async (path, params = {}) => (await backend().get({ path, params })).json();
  assert.deepEqual(await ask(`/channels/${presence}`, { info: "user_count,subscription_count" }), {
    occupied: true,
    user_count: 2,
    subscription_count: 2,
  });
  assert.deepEqual(await ask(`/channels/${fresh("news-")}`), { occupied: false });
  assert.deepEqual(await ask(`/channels/${presence}/users`), { users: [{ id: "ann" }, { id: "bob" }] });
  const { channels } = await ask("/channels", { filter_by_prefix: "presence-", info: "user_count" });
  assert.deepEqual(channels[presence], { user_count: 2 });
  assert.equal(channels[news], undefined);
  assert.ok(news in (await ask("/channels")).channels);
});

test("a backend asks what a cache channel keeps, and for how long yet", async () => {
  const name = fresh("cache-");
  const ask = async () => (await backend().get({ path: `/channels/${name}`, params: { info: "cache" } })).json();
  assert.deepEqual(await ask(), { occupied: false });
  await backend().trigger(name, "price", { eur: 1 });
  await backend().trigger(name, "price", { eur: 2 });
  const { occupied, cache } = await ask();
  assert.deepEqual([occupied, cache.data], [false, JSON.stringify({ eur: 2 })]);
  assert.ok(Number.isInteger(cache.ttl) && cache.ttl > 0 && cache.ttl <= 1800, `${cache.ttl} of 1800 s`);
});

test("a request that is not signed as it must be is refused", async () => {
  const forger = backend({ ...app, secret: "another" });
  await assert.rejects(forger.trigger("news", "e", 1), (error) => error.status === 401);
  const stranger = backend({ ...app, id: "nobody" });
  await assert.rejects(stranger.trigger("news", "e", 1), (error) => error.status === 404);
  await assert.rejects(backend().trigger("news", "e", "x".repeat(11_000)), (error) => error.status === 413);
});

test("a request that was signed more than ten minutes ago, or for then, is refused", async () => {
  const ask = async (seconds) => {
    const query = `auth_key=${app.key}&auth_timestamp=${Math.floor(Date.now() / 1000) + seconds}&auth_version=1.0`;
    const path = `/apps/${app.id}/channels`;
    const signature = createHmac("sha256", app.secret).update(`GET\n${path}\n${query}`).digest("hex");
    return (await fetch(new URL(`${path}?${query}&auth_signature=${signature}`, internal))).status;
  };
  assert.deepEqual([await ask(0), await ask(-500), await ask(500)], [200, 200, 200]);
  assert.deepEqual([await ask(-700), await ask(700)], [401, 401]);
});
