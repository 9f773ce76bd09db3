// The unmodified client and backend libraries of Pusher, and Laravel Echo, against a cluster; and messages that cross to and from
// clients of other dialects.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import Echo from "laravel-echo";
import Pusher from "pusher-js";
import WebSocket from "ws";
import {
  app, backend, client, closeAll, closing, connecting, fresh, gathered, heard, node, options, other, subscribed, url,
} from "./scene.mjs";

afterEach(closeAll);

test("an event reaches the subscribers of its channel on every node, under its name", async () => {
  const name = fresh("news-");
  const heardBy = [];
  for (let i = 0; i < 6; i++) heardBy.push(gathered(await subscribed(await client(), name), "headline"));
  for (const data of [{ text: "é" }, "plain", [1, 2], 7]) await backend().trigger(name, "headline", data);
  for (const { until } of heardBy) {
    assert.deepEqual((await until(4)).map(({ data }) => data), [{ text: "é" }, "plain", [1, 2], 7]);
  }
});

test("a private channel takes the application's signature", async () => {
  const name = fresh("private-");
  const channel = await subscribed(await client(), name);
  const heardIt = gathered(channel, "e");
  await backend().trigger(name, "e", { a: 1 });
  assert.deepEqual((await heardIt.until(1))[0].data, { a: 1 });

  const forger = connecting(app.key, {
    ...options(),
    channelAuthorization: { customHandler: (_, done) => done(null, { auth: `${app.key}:${"0".repeat(64)}` }) },
  });
  await heard(forger.connection, "connected");
  const error = await heard(forger.subscribe(name), "pusher:subscription_error");
  assert.equal(error.type, "AuthError");
  assert.equal(error.status, 401);
});

test("clients publish to the others of a private channel, and not to themselves", async () => {
  const name = fresh("private-");
  const [ann, bob] = [await subscribed(await client(), name), await subscribed(await client(), name)];
  const [byAnn, byBob] = [gathered(ann, "client-typing"), gathered(bob, "client-typing")];
  ann.trigger("client-typing", { by: "ann" });
  assert.deepEqual((await byBob.until(1))[0].data, { by: "ann" });
  bob.trigger("client-typing", { by: "bob" });
  assert.deepEqual((await byAnn.until(1)).map((it) => it.data), [{ by: "bob" }]);
  assert.equal(byBob.all.length, 1);
});

test("a client that publishes faster than it may is told so with 4301", async () => {
  const name = fresh("private-");
  const ann = await client();
  const channel = await subscribed(ann, name);
  const error = heard(ann.connection, "error");
  for (let i = 0; i < 30; i++) channel.trigger("client-typing", i);
  assert.equal((await error).data.code, 4301);
  assert.equal(ann.connection.state, "connected");
});

test("a presence channel names its members, each user once, and tells who comes and goes", async () => {
  const name = fresh("presence-");
  const ann = await client({ user: "ann" });
  const anns = await subscribed(ann, name);
  assert.deepEqual([anns.members.count, anns.members.myID], [1, "ann"]);
  const [added, removed] = [gathered(anns, "pusher:member_added"), gathered(anns, "pusher:member_removed")];
  const bob = await client({ user: "bob" });
  const bobs = await subscribed(bob, name);
  assert.deepEqual(bobs.members.members, { ann: { name: "ann" }, bob: { name: "bob" } });
  assert.deepEqual((await added.until(1))[0].data, { id: "bob", info: { name: "bob" } });
  const again = await client({ user: "bob" });
  const second = await subscribed(again, name);
  assert.equal(second.members.count, 2);
  const waved = gathered(anns, "client-wave");
  second.trigger("client-wave", {});
  assert.equal((await waved.until(1))[0].user, "bob");
  bob.disconnect();
  second.trigger("client-wave", {});
  await waved.until(2);
  assert.equal(removed.all.length, 0, "bob is still there");
  again.disconnect();
  assert.equal((await removed.until(1))[0].data.id, "bob");
  assert.equal(added.all.length, 1);
});

test("who hears a channel is told how many do, where the application wants that", async () => {
  const name = fresh("news-");
  const counted = async (how) => {
    const pusher = await client(how);
    const channel = pusher.subscribe(name);
    const { all, until } = gathered(channel, "pusher:subscription_count");
    const becomes = async (count) => {
      for (let more = 1; all.at(-1)?.data.subscription_count !== count; more = all.length + 1) await until(more);
      assert.equal(channel.subscriptionCount, count);
    };
    return { pusher, all, becomes };
  };
  const ann = await counted({ at: node(1) });
  await ann.becomes(1);
  const bob = await counted({ at: node(2) });
  await ann.becomes(2);
  await bob.becomes(2);
  bob.pusher.disconnect();
  await ann.becomes(1);

  const hall = await subscribed(await client({ user: "ann" }), fresh("presence-"));
  const members = gathered(hall, "pusher:subscription_count");
  const theirs = await counted({ application: other });
  const [late, more] = [gathered(hall, "e"), await counted({ at: node(3) })];
  await ann.becomes(2);
  await backend().trigger(hall.name, "e", 1);
  await late.until(1);
  assert.deepEqual([members.all, theirs.all], [[], []], "on no presence channel, and nobody else's clients");
  more.pusher.disconnect();
});

test("who subscribes to a cache channel hears what was published last", async () => {
  const name = fresh("cache-");
  const early = (await client()).subscribe(name);
  await heard(early, "pusher:cache_miss");
  const byEarly = gathered(early, "price");
  await backend().trigger(name, "price", { eur: 1 });
  await backend().trigger(name, "price", { eur: 2 });
  await byEarly.until(2);
  const late = gathered((await client()).subscribe(name), "price");
  assert.deepEqual((await late.until(1))[0].data, { eur: 2 });
});

test("a user who has signed in hears what is meant for it, and can be sent away", async () => {
  const user = fresh("user-");
  const ann = await client({ user });
  const welcome = heard(ann.user, "hello");
  ann.signin();
  await ann.user.signinDonePromise;
  // Its channel is subscribed to by the library, which tells nobody when that is done.
  const repeat = setInterval(() => backend().sendToUser(user, "hello", { a: 1 }), 100);
  assert.deepEqual(await welcome, { a: 1 });
  clearInterval(repeat);
  const error = heard(ann.connection, "error");
  await backend().terminateUserConnections(user);
  assert.equal((await error).data.code, 4009);
});

test("applications of one cluster do not hear each other", async () => {
  const name = fresh("news-");
  const mine = gathered(await subscribed(await client(), name), "e");
  const theirs = gathered(await subscribed(await client({ application: other }), name), "e");
  await backend(other).trigger(name, "e", "theirs");
  await backend().trigger(name, "e", "mine");
  assert.deepEqual((await mine.until(1)).map((it) => it.data), ["mine"]);
  assert.deepEqual((await theirs.until(1)).map((it) => it.data), ["theirs"]);
});

/** Connects without a library; what it is told until it is closed, or until it is connected. */
async function greeted(query, subprotocols = []) {
  const socket = new WebSocket(new URL(`/app/${app.key}?${query}`, url.href.replace("http", "ws")), subprotocols);
  const texts = [];
  const code = await new Promise((resolve) => {
    socket.on("close", resolve);
    socket.on("message", (text) => {
      texts.push(JSON.parse(text));
      if (texts[0].event === "pusher:connection_established") resolve();
    });
  });
  socket.close();
  return { code, texts, subprotocol: socket.protocol };
}

test("a client of another version of the protocol is told so with 4007, and one of none with 4008", async () => {
  for (const [query, expected] of [["protocol=6", 4007], ["protocol=8", 4007], ["client=js", 4008]]) {
    const { code, texts } = await greeted(query);
    assert.deepEqual([code, texts.map(({ event, data }) => [event, data.code])], [expected, [["pusher:error", expected]]], query);
  }
});

test("a client says its version by a subprotocol, too, and hears that it was chosen", async () => {
  const spoken = "pusher-channels-protocol-7";
  for (const [query, subprotocols] of [["client=swift", [spoken]], ["protocol=7", [spoken]], ["", ["another", spoken]]]) {
    const { texts, subprotocol } = await greeted(query, subprotocols);
    assert.deepEqual([texts.length, texts[0].event, subprotocol], [1, "pusher:connection_established", spoken], query);
  }
  const { texts, subprotocol } = await greeted("protocol=7");
  assert.deepEqual([texts[0].event, subprotocol], ["pusher:connection_established", ""], "none is chosen of none");
});

test("a client of no application is told so, and does not come back", async () => {
  const stranger = connecting("nobody", options());
  const gone = heard(stranger.connection, "disconnected");
  const { error } = await heard(stranger.connection, "error");
  assert.equal(error.data.code, 4001);
  await gone;
});

for (const broadcaster of ["pusher", "reverb"]) {
  test(`Laravel Echo hears public, private and presence channels, and whispers (${broadcaster})`, async () => {
    const [news, room, hall] = [fresh("news-"), fresh("room-"), fresh("hall-")];
    const echo = (user) => {
      const made = new Echo({ broadcaster, key: app.key, Pusher, ...options({ user }) });
      closing(made.connector.pusher);
      return made;
    };
    const [ann, bob] = [echo("ann"), echo("bob")];
    const on = (subscribe) => new Promise((resolve) => subscribe(resolve));
    const shipped = on((done) => ann.channel(news).subscribed(() => done("there")).error(done));
    assert.equal(await shipped, "there");
    const order = on((done) => ann.channel(news).listen(".OrderShipped", done));
    await backend().trigger(news, "OrderShipped", { id: 1 });
    assert.deepEqual(await order, { id: 1 });

    const whispered = on((done) => ann.private(room).listenForWhisper("typing", done));
    await on((done) => ann.private(room).subscribed(done));
    await on((done) => bob.private(room).subscribed(done));
    bob.private(room).whisper("typing", { by: "bob" });
    assert.deepEqual(await whispered, { by: "bob" });

    const here = await on((done) => ann.join(hall).here(done));
    assert.deepEqual(here, [{ name: "ann" }]);
    const joining = on((done) => ann.join(hall).joining(done));
    bob.join(hall);
    assert.deepEqual(await joining, { name: "bob" });
    const leaving = on((done) => ann.join(hall).leaving(done));
    bob.leave(hall);
    assert.deepEqual(await leaving, { name: "bob" });
  });
}

test("what a backend triggers is heard by the native client and by SSE, and the other way round", async () => {
  const name = fresh("news-");
  const native = new WebSocket(`ws://${url.host}/ws`, "fanfare.v1.json");
  const frames = gatheredFrames(native);
  await frames.until((it) => it.type === "welcome");
  native.send(JSON.stringify({ type: "subscribe", id: 1, channel: `${app.id}:${name}` }));
  await frames.until((it) => it.type === "subscribed");
  const stop = new AbortController();
  const stream = await fetch(`${url.origin}/sse?channel=${app.id}:${name}`, { signal: stop.signal });
  const lines = eventsOf(stream.body);
  await lines.until((it) => it.type === "subscribed");
  const byPusher = gathered(await subscribed(await client(), name), "order");

  await backend().trigger(name, "order", { id: 7 });
  const expected = { type: "message", channel: `${app.id}:${name}`, label: "order", data: { id: 7 } };
  assert.deepEqual(await frames.until((it) => it.type === "message"), expected);
  assert.deepEqual(await lines.until((it) => it.type === "message"), expected);
  assert.deepEqual((await byPusher.until(1))[0].data, { id: 7 });

  const published = await fetch(`${process.env.CLUSTER_NODE_2_INTERNAL}/api/publish`, {
    method: "POST",
    body: JSON.stringify({ channel: `${app.id}:${name}`, label: "order", data: { id: 8 } }),
  });
  assert.equal(published.status, 200);
  assert.deepEqual((await byPusher.until(2))[1].data, { id: 8 });
  stop.abort();
  native.close();
});

/** The objects of a WebSocket, the first that a test likes. */
function gatheredFrames(socket) {
  const waiting = [];
  const all = [];
  socket.on("message", (frame) => {
    all.push(JSON.parse(frame));
    for (const look of waiting) look();
  });
  const until = (likes) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("nothing of the kind came")), 10_000);
      const look = () => {
        const found = all.find(likes);
        if (found) {
          clearTimeout(timer);
          resolve(found);
        }
      };
      waiting.push(look);
      look();
    });
  return { until };
}

/** The same for a stream of events. */
function eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const until = async (likes) => {
    for (;;) {
      const events = text.split("\n").filter((line) => line.startsWith("data: ")).flatMap((line) => {
        try {
          return [JSON.parse(line.slice(6))];
        } catch {
          return [];
        }
      });
      const found = events.find(likes);
      if (found) return found;
      const { value, done } = await reader.read();
      if (done) throw new Error("the stream has ended");
      text += value;
    }
  };
  return { until };
}
