// What applications are told of their channels: by one node of the cluster, in the form and with the signature that the library for
// backends takes. The application writes it down at FANFARE_APPLICATION_URL (application.mjs).

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { app, backend, client, closeAll, fresh, other, subscribed } from "./scene.mjs";

afterEach(closeAll);

const recorder = (path) => new URL(path, process.env.FANFARE_APPLICATION_URL);

/**
 * The events that an application was told of a channel, in order and at one of its places; each webhook has to be valid by the
 * library's judgement.
 */
async function told(channel, application = app, place = application.id) {
  const webhooks = await (await fetch(recorder(place))).json();
  return webhooks.flatMap(({ headers, body }) => {
    const webhook = backend(application).webhook({ headers, rawBody: body });
    assert.ok(webhook.isValid(), body);
    assert.ok(Math.abs(Date.now() - webhook.getTime().getTime()) < 600_000);
    return webhook.getEvents().filter((event) => event.channel === channel);
  });
}

/** Waits until it was told exactly this of a channel, whose name is left out. */
async function hears(channel, expected, application = app, place = application.id) {
  let events = [];
  for (let tries = 0; tries < 600 && events.length < expected.length; tries++) {
    await setTimeout(50); // Between two questions, not for what is waited for.
    events = await told(channel, application, place);
  }
  assert.deepEqual(events.map(({ channel, ...rest }) => rest), expected);
}

const occupied = { name: "channel_occupied" };
const vacated = { name: "channel_vacated" };
const count = (number) => ({ name: "subscription_count", subscription_count: number });

test("a channel is occupied and vacated once, however many nodes it is on", async () => {
  const name = fresh("news-");
  const first = await client();
  await subscribed(first, name);
  await hears(name, [occupied, count(1)]);
  const more = [await client(), await client(), await client()];
  for (const [place, pusher] of more.entries()) {
    await subscribed(pusher, name);
    await hears(name, [occupied, ...[...Array(place + 2).keys()].map((n) => count(n + 1))]);
  }
  first.disconnect();
  await hears(name, [occupied, count(1), count(2), count(3), count(4), count(3)]);
  closeAll();
  for (let tries = 0; tries < 600; tries++) {
    if ((await told(name)).some((event) => event.name === "channel_vacated")) break;
    await setTimeout(50);
  }
  const all = (await told(name)).filter((event) => event.name !== "subscription_count").map((event) => event.name);
  assert.deepEqual(all, ["channel_occupied", "channel_vacated"]);
});

test("members of a presence channel are told of once each, when they come and when they go", async () => {
  const name = fresh("presence-");
  const ann = await client({ user: "ann" });
  await subscribed(ann, name);
  const added = (user_id) => ({ name: "member_added", user_id });
  const removed = (user_id) => ({ name: "member_removed", user_id });
  await hears(name, [occupied, added("ann")]);
  const [bob, again] = [await client({ user: "bob" }), await client({ user: "bob" })];
  await subscribed(bob, name);
  await hears(name, [occupied, added("ann"), added("bob")]);
  await subscribed(again, name);
  bob.disconnect();
  ann.disconnect();
  await hears(name, [occupied, added("ann"), added("bob"), removed("ann")]);
  again.disconnect();
  for (let tries = 0; tries < 600 && (await told(name)).length < 6; tries++) await setTimeout(50);
  const last = (await told(name)).slice(4).map((event) => event.name);
  assert.deepEqual(last.sort(), ["channel_vacated", "member_removed"]);
});

test("what clients publish is told, with its event, its data and by whom", async () => {
  const name = fresh("presence-");
  const ann = await client({ user: "ann" });
  const channel = await subscribed(ann, name);
  channel.trigger("client-wave", { to: "é" });
  await backend().trigger(name, "not-a-clients", 1);
  let event;
  for (let tries = 0; tries < 600 && !event; tries++) {
    await setTimeout(50);
    event = (await told(name)).find((it) => it.name === "client_event");
  }
  assert.deepEqual(event, {
    name: "client_event",
    channel: name,
    event: "client-wave",
    data: '{"to":"é"}',
    socket_id: ann.connection.socket_id,
    user_id: "ann",
  });
  assert.equal((await told(name)).filter((it) => it.name === "client_event").length, 1);
});

test("who finds a cache channel empty is told of, and who does not is not", async () => {
  const name = fresh("cache-");
  await subscribed(await client(), name);
  const misses = async () => (await told(name)).filter((event) => event.name === "cache_miss").length;
  for (let tries = 0; tries < 600 && (await misses()) === 0; tries++) await setTimeout(50);
  await backend().trigger(name, "e", 1);
  await subscribed(await client(), name);
  // The node that would tell of it tells of its subscription after that.
  const isCounted = async () => (await told(name)).some((event) => event.subscription_count === 2);
  for (let tries = 0; tries < 600 && !(await isCounted()); tries++) await setTimeout(50);
  assert.ok(await isCounted());
  assert.equal(await misses(), 1);
});

test("an application is told of its own channels, signed by its own secret", async () => {
  const name = fresh("news-");
  await subscribed(await client({ application: other }), name);
  await hears(name, [occupied], other);
  assert.deepEqual(await told(name), []);
  const [{ headers, body }] = await (await fetch(recorder(other.id))).json();
  assert.ok(!backend(app).webhook({ headers, rawBody: body }).isValid(), "by another application's");
});

test("each place is told what it wants, and one that takes nothing holds up no other", async () => {
  const [name, more] = [`${fresh("news-")}-audited`, fresh("news-")];
  const pusher = await client();
  await subscribed(pusher, name);
  await hears(name, [occupied], app, "audit");
  await hears(name, [occupied, count(1)]);
  for (let tries = 0; tries < 600 && !(await told(name, app, "broken")).length; tries++) await setTimeout(50);
  pusher.unsubscribe(name);
  await hears(name, [occupied, vacated], app, "audit");
  await subscribed(pusher, more);
  await hears(more, [occupied, count(1)]);
  assert.deepEqual(await told(more, app, "audit"), [], "it is not among its channels");
  const broken = await told(name, app, "broken");
  assert.ok(broken.length > 0 && broken.every((event) => event.name === "channel_occupied"), "it is tried again");
});

test("a webhook that is not taken is sent again", async () => {
  const name = fresh("news-");
  await fetch(recorder(`${other.id}/${name}`), { method: "POST" });
  await subscribed(await client({ application: other }), name);
  await hears(name, [occupied, occupied], other);
});
