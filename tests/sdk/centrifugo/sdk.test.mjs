/** The SDK of Centrifugo, unmodified, on three nodes behind nginx: every call that it has, in both of its formats and by each transport. */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import WebSocket from 'ws';
import { Clients, Heard, WAYS, api, bounded, call, cluster, refusal, said, saying, signed, subscribed, until } from './support.mjs';

const now = () => Math.floor(Date.now() / 1000);

/** A WebSocket that counts what it is told. */
const counting = (told) => class extends WebSocket {
  constructor(...of) {
    super(...of);
    this.on('message', (data) => { told.bytes += data.length; });
  }
};

/** A test for each way to speak, whose clients end with it. */
function each(name, run) {
  describe(name, { concurrency: true }, () => {
    for (const [said, way] of Object.entries(WAYS)) {
      test(said, async () => {
        const clients = new Clients();
        try {
          await run({
            connect: (options) => clients.connected(cluster.url, options, way),
            client: (options) => clients.client(cluster.url, options, way),
            own: said.replaceAll(' ', '-'),
          });
        } finally {
          clients.close();
        }
      });
    }
  });
}

each('what is published is heard once, in order, with its publisher', async ({ connect, own }) => {
  const ann = await connect({ token: cluster.token('ann', { info: { name: 'Ann' } }) });
  const bob = await connect();
  const heard = new Heard(await subscribed(bob, `room:${own}`), 'publication');
  const room = await subscribed(ann, `room:${own}`);
  for (let n = 1; n <= 20; n++) await bounded(room.publish(saying(ann, { n })), 'published');
  await heard.count(20);
  assert.deepEqual(heard.all.map((it) => said(it.data).n), [...Array(20).keys()].map((n) => n + 1));
  assert.deepEqual([heard.all[0].info.user, heard.all[0].info.client], ['ann', ann._client]);
  assert.deepEqual(said(heard.all[0].info.connInfo), { name: 'Ann' });
  assert.deepEqual(heard.all.map((it) => it.offset), heard.all.map((_, n) => heard.all[0].offset + n));
});

each('who asks for differences is told those, and makes the same of them', async ({ connect, own }) => {
  const told = { bytes: 0 };
  const ann = await connect({ websocket: counting(told) });
  const bob = await connect();
  const channel = `room:differences-${own}`;
  const everything = new Heard(await subscribed(bob, channel), 'publication');
  const subscription = await subscribed(ann, channel, { delta: 'fossil' });
  const heard = new Heard(subscription, 'publication');
  const again = new Heard(subscription, 'subscribed');
  // Characters that begin with the same bytes, and quotes, which are escaped where a delta is a string.
  const value = (n) => ({ n, letters: 'éèêë'[n % 4] + '日本語の文字'[n % 6], text: '"the same" in all of them; '.repeat(40), list: Array(n % 5).fill('more') });
  const expected = [...Array(40).keys()].map(value);
  for (const it of expected.slice(0, 30)) await api(cluster.internal, 'publish', { channel, data: it });
  await heard.count(30);
  // Thirty times a kilobyte, of which one is told whole.
  if (told.bytes > 0) assert.ok(told.bytes < 10_000, `${told.bytes} bytes`);
  subscription.unsubscribe();
  for (const it of expected.slice(30, 35)) await api(cluster.internal, 'publish', { channel, data: it });
  subscription.subscribe();
  assert.equal((await again.first()).recovered, true);
  for (const it of expected.slice(35)) await api(cluster.internal, 'publish', { channel, data: it });
  await heard.count(40);
  await everything.count(40);
  assert.deepEqual(heard.all.map((it) => said(it.data)), expected);
  assert.deepEqual(everything.all.map((it) => said(it.data)), expected);
  assert.deepEqual(heard.all.map((it) => it.offset), everything.all.map((it) => it.offset));
});

each('a payload that is no text is a difference too, where any bytes may be sent', async ({ connect, own }) => {
  const ann = await connect();
  if (!(saying(ann, 1) instanceof Uint8Array)) return;
  const room = await subscribed(ann, `room:bytes-${own}`, { delta: 'fossil' });
  const heard = new Heard(room, 'publication');
  const bytes = (n) => Uint8Array.from({ length: 300 }, (_, at) => (at === 100 ? n : 0x80 | (at * 7)));
  for (let n = 0; n < 5; n++) await bounded(room.publish(bytes(n)), 'published');
  await heard.count(5);
  assert.deepEqual(heard.all.map((it) => [...it.data]), [0, 1, 2, 3, 4].map((n) => [...bytes(n)]));
});

each('who asks by tags is told what they let through, live and recovered', async ({ connect, own }) => {
  const ann = await connect();
  const channel = `room:tags-${own}`;
  const share = (key, cmp, val) => ({ key, cmp, val });
  const tagsFilter = { op: 'and', nodes: [
    { key: 'ticker', cmp: 'in', vals: ['A', 'B'] },
    { op: 'or', nodes: [share('price', 'gte', '100'), { op: 'not', nodes: [share('venue', 'neq', 'X')] }] },
  ] };
  const all = new Heard(await subscribed(await connect(), channel), 'publication');
  const subscription = await subscribed(ann, channel, { tagsFilter });
  const heard = new Heard(subscription, 'publication');
  const again = new Heard(subscription, 'subscribed');
  const publish = async (data, tags) => {
    const headers = { 'X-API-Key': 'any' };
    const answer = await fetch(`${cluster.internal}/api/publish`, { method: 'POST', headers, body: JSON.stringify({ channel, data, tags }) });
    assert.ok((await answer.json()).result, 'published');
  };
  await publish(1, { ticker: 'A', price: '100.0' });
  await publish(2, { ticker: 'A', price: '99.99' });
  await publish(3, { ticker: 'C', price: '200' });
  await publish(4, { ticker: 'B', venue: 'X' });
  await publish(5);
  await heard.count(2);
  subscription.unsubscribe();
  await publish(6, { ticker: 'A', price: '1000' });
  await publish(7, { ticker: 'A', price: '1' });
  subscription.subscribe();
  assert.equal((await again.first()).recovered, true);
  await publish(8, { ticker: 'B', price: '100' });
  await heard.count(4);
  await all.count(8);
  assert.deepEqual(heard.all.map((it) => said(it.data)), [1, 4, 6, 8]);
  assert.deepEqual({ ...heard.all[0].tags }, { ticker: 'A', price: '100.0' });
  assert.deepEqual(all.all.map((it) => said(it.data)), [1, 2, 3, 4, 5, 6, 7, 8]);
});

each('the past, and who is there', async ({ connect }) => {
  const ann = await connect({ token: cluster.token('ann', { info: { name: 'Ann' } }) });
  const bob = await connect({ token: cluster.token('bob') });
  const channel = `room:past-${Math.random()}`;
  const anns = await subscribed(ann, channel, { joinLeave: true });
  const joined = new Heard(anns, 'join');
  const left = new Heard(anns, 'leave');
  const bobs = await subscribed(bob, channel);
  assert.equal((await joined.first()).info.user, 'bob');
  for (const n of [1, 2, 3]) await anns.publish(saying(ann, n));
  const past = await anns.history({ limit: 10 });
  assert.deepEqual(past.publications.map((it) => said(it.data)), [1, 2, 3]);
  const last = await bobs.history({ limit: 1, reverse: true });
  assert.deepEqual(last.publications.map((it) => said(it.data)), [3]);
  const since = await bobs.history({ limit: 10, since: { offset: 1, epoch: past.epoch } });
  assert.deepEqual(since.publications.map((it) => said(it.data)), [2, 3]);
  const top = await bobs.history();
  assert.deepEqual([top.publications.length, top.offset, top.epoch], [0, 3, past.epoch]);
  const { clients } = await anns.presence();
  const members = Object.values(clients).map((it) => [it.user, it.connInfo?.length !== 0 && said(it.connInfo)]);
  assert.deepEqual(members.sort().map(([user]) => user), ['ann', 'bob']);
  assert.deepEqual(members[0][1], { name: 'Ann' });
  const stats = await anns.presenceStats();
  assert.deepEqual([stats.numClients, stats.numUsers], [2, 2]);
  bobs.unsubscribe();
  assert.equal((await left.first()).info.user, 'bob');
});

each('what is not allowed is refused with the code of Centrifugo', async ({ connect }) => {
  const ann = await connect({ token: cluster.token('ann') });
  assert.equal(await refusal(ann.publish('room:1', saying(ann, 1))), 103, 'only subscribers may');
  assert.equal(await refusal(ann.publish('other:1', saying(ann, 1))), 102, 'there is no such namespace');
  assert.equal(await refusal(ann.history('quiet:1', { limit: 1 })), 108, 'no history is kept');
  assert.equal(await refusal(ann.presence('quiet:1')), 108, 'presence is off');
  const refused = async (channel, options) => {
    const subscription = ann.newSubscription(channel, options);
    const unsubscribed = new Heard(subscription, 'unsubscribed');
    subscription.subscribe();
    return (await unsubscribed.first()).code;
  };
  assert.equal(await refused('other:2'), 102);
  assert.equal(await refused('$room:1'), 103, 'a private channel takes a token');
  assert.equal(await refused('room:pair#bob,cid'), 103, 'the name lists others');
  await subscribed(ann, 'room:pair#ann,bob');
});

each('a channel of its own token: let in, let in again, and out when it ends', async ({ connect }) => {
  const ann = await connect({ token: cluster.token('ann') });
  const pass = (channel, claims) => signed({ sub: 'ann', channel, ...claims });
  const room = await subscribed(ann, '$room:secret', { token: pass('$room:secret') });
  const heard = new Heard(room, 'publication');
  await api(cluster.internal, 'publish', { channel: '$room:secret', data: { for: 'ann' } });
  assert.deepEqual(said((await heard.first()).data), { for: 'ann' });
  let asked = 0;
  const getToken = async () => pass('vip:1', { exp: now() + (asked++ === 0 ? -60 : asked === 2 ? 2 : 3600) });
  const vip = ann.newSubscription('vip:1', { getToken });
  vip.subscribe();
  await bounded(vip.ready(), 'subscribed with the second token');
  assert.equal(asked, 2, 'the first had expired');
  const renewed = async () => { while (asked < 3) await new Promise((resolve) => setTimeout(resolve, 20)); };
  await bounded(renewed(), 'the token is refreshed before it ends');
  assert.equal(vip.state, 'subscribed');
  const thrown = new Heard(ann, 'disconnected');
  ann.newSubscription('vip:2', { token: pass('vip:1') }).subscribe();
  assert.equal((await thrown.first()).code, 3500, 'a token of another channel');
});

each('what a token lists is subscribed to, and told with the greeting', async ({ client }) => {
  const ann = client({ token: cluster.token('ann', { channels: ['room:listed'] }) });
  const subscribed = new Heard(ann, 'subscribed');
  const publication = new Heard(ann, 'publication');
  ann.connect();
  assert.equal((await subscribed.first()).channel, 'room:listed');
  assert.equal(subscribed.all[0].recoverable, true);
  await api(cluster.internal, 'publish', { channel: 'room:listed', data: 'hello' });
  const { channel, data } = await publication.first();
  assert.deepEqual([channel, said(data)], ['room:listed', 'hello']);
});

each('a token is refreshed, an expired one replaced, and a bad one is the end', async ({ client }) => {
  let asked = 0;
  const getToken = async () => cluster.token('ann', { exp: now() + (asked++ === 0 ? 2 : 3600) });
  const ann = client({ token: cluster.token('ann', { exp: now() - 60 }), getToken });
  const disconnected = new Heard(ann, 'disconnected');
  ann.connect();
  await bounded(ann.ready(), 'connected with a fresh token');
  const refreshed = async () => { while (asked < 2) await new Promise((resolve) => setTimeout(resolve, 20)); };
  await bounded(refreshed(), 'the token is refreshed');
  assert.deepEqual([ann.state, disconnected.all], ['connected', []]);
  const forger = client({ token: `${cluster.token('ann')}x` });
  const out = new Heard(forger, 'disconnected');
  forger.connect();
  assert.equal((await out.first()).code, 3500);
});

each('a backend sends a client away, for good or to come back', async ({ connect, own }) => {
  const user = `sent-away-${own}`;
  const ann = await connect({ token: cluster.token(user) });
  const connecting = new Heard(ann, 'connecting');
  await api(cluster.internal, 'disconnect', { user, code: 1001 });
  assert.equal((await connecting.first()).code, 3001);
  await bounded(ann.ready(), 'back');
  const disconnected = new Heard(ann, 'disconnected');
  await api(cluster.internal, 'disconnect', { user });
  assert.equal((await disconnected.first()).code, 3503);
});

each("the HTTP API of Centrifugo reaches its clients", async ({ connect, own }) => {
  const call = async (method, body, headers = { 'X-API-Key': 'any, where there are none' }) => {
    const answer = await fetch(`${cluster.internal}/api/${method}`, { method: 'POST', headers, body: JSON.stringify(body) });
    return [answer.status, await answer.json()];
  };
  const user = `by-api-${own}`;
  const ann = await connect({ token: cluster.token(user) });
  const [one, two] = [`room:${Math.random()}`, `room:${Math.random()}`];
  const heard = new Heard(await subscribed(ann, one), 'publication');
  const others = new Heard(await subscribed(ann, two), 'publication');
  const [status, published] = await call('publish', { channel: one, data: { n: 1 } });
  assert.deepEqual([status, published.result.offset], [200, 1]);
  const [, broadcast] = await call('broadcast', { channels: [one, two, 'no such:x'], data: { n: 2 } });
  assert.deepEqual(broadcast.result.responses.map((it) => it.result?.offset ?? it.error.code), [2, 1, 107]);
  await heard.count(2);
  await others.count(1);
  assert.deepEqual(heard.all.map((it) => said(it.data).n), [1, 2]);
  const [, batch] = await call('batch', { commands: [{ history: { channel: one, limit: 10 } }, { presence_stats: { channel: one } }, { presence: { channel: one } }] });
  assert.deepEqual(batch.replies[0].history.result.publications.map((it) => it.data.n), [1, 2]);
  assert.deepEqual(batch.replies[1].presence_stats.result, { num_clients: 1, num_users: 1 });
  assert.deepEqual(Object.values(batch.replies[2].presence.result.presence).map((it) => it.user), [user]);
  assert.deepEqual(await call('history_remove', { channel: one }), [200, { result: {} }]);
  const [, unknown] = await call('publish', { channel: 'other:1', data: 1 });
  assert.equal(unknown.error.code, 102);
  const [transport] = await call('publish', { channel: 'other:1', data: 1 }, { 'Authorization': 'apikey x', 'X-Centrifugo-Error-Mode': 'transport' });
  assert.equal(transport, 404);
  const disconnected = new Heard(ann, 'disconnected');
  await call('disconnect', { user });
  assert.equal((await disconnected.first()).code, 3503);
});

each('a backend has clients hear a channel, on its terms, and no longer', async ({ connect, own }) => {
  const user = `steered-${own}`;
  const [ann, other] = [await connect({ token: cluster.token(user) }), await connect({ token: cluster.token(user) })];
  const bob = await connect({ token: cluster.token('bob') });
  const channel = `room:steered-${own}-${Math.random()}`;
  const [first, second] = [await call(cluster.internal, 'publish', { channel, data: 1 }), await call(cluster.internal, 'publish', { channel, data: 2 })];
  assert.deepEqual([first.offset, second.offset], [1, 2]);
  const entered = new Heard(ann, 'subscribed');
  const heard = new Heard(ann, 'publication');
  const joined = new Heard(ann, 'join');
  const left = new Heard(ann, 'unsubscribed');
  const others = new Heard(other, 'subscribed');
  const terms = { data: { hello: 'Ann' }, info: { seat: 7 }, override: { force_push_join_leave: { value: true } } };
  await call(cluster.internal, 'subscribe', { user, client: ann._client, channel, recover_since: { offset: 1, epoch: first.epoch }, ...terms });
  const context = await entered.first((it) => it.channel === channel);
  assert.deepEqual([said(context.data), context.recoverable, context.positioned], [{ hello: 'Ann' }, true, true]);
  assert.equal(said((await heard.first()).data), 2, 'what it missed since');
  await subscribed(bob, channel);
  assert.equal((await joined.first((it) => it.channel === channel)).info.user, 'bob');
  let member;
  await until('it is known to be there', async () => {
    member = (await call(cluster.internal, 'presence', { channel })).presence[ann._client];
    return member;
  });
  assert.deepEqual(member, { user, client: ann._client, chan_info: { seat: 7 } });
  await call(cluster.internal, 'unsubscribe', { user, channel });
  assert.equal((await left.first()).channel, channel);
  await call(cluster.internal, 'publish', { channel, data: 3 });
  await call(cluster.internal, 'subscribe', { user, session: 'f'.repeat(32), channel });
  await call(cluster.internal, 'subscribe', { user: 'bob', client: ann._client, channel });
  await call(cluster.internal, 'subscribe', { user, channel: `${channel}-last` });
  await others.first((it) => it.channel === `${channel}-last`);
  assert.deepEqual(others.all.map((it) => it.channel), [`${channel}-last`], 'it alone was meant, and then all of the user');
  assert.deepEqual(heard.all.map((it) => said(it.data)), [2]);
});

each('a backend says for how long a client may stay, and what others see of it', async ({ connect, own }) => {
  const user = `refreshed-${own}`;
  const [ann, kept] = [await connect({ token: cluster.token(user, { info: 'old' }) }), await connect({ token: cluster.token(user) })];
  const channel = `room:refreshed-${own}`;
  const room = await subscribed(ann, channel);
  const heard = new Heard(await subscribed(kept, channel), 'publication');
  assert.deepEqual(await call(cluster.internal, 'refresh', { user, client: ann._client, expire_at: now() + 3600, info: 'new' }), {});
  // The order is obeyed a moment later: what it publishes by then shows it.
  await until('it is shown as the backend says', async () => {
    await room.publish(saying(ann, 1));
    return said(heard.all.at(-1)?.info.connInfo ?? null) === 'new';
  });
  const gone = new Heard(ann, 'connecting');
  const stays = new Heard(kept, 'connecting');
  await call(cluster.internal, 'refresh', { user, client: ann._client, expired: true });
  assert.equal((await gone.first()).code, 3005);
  await bounded(ann.ready(), 'back with its token');
  await call(cluster.internal, 'refresh', { user, client: ann._client, expire_at: now() - 1 });
  await gone.count(2);
  assert.deepEqual([gone.all.map((it) => it.code), stays.all], [[3005, 3005], []]);
});

each('a backend sends away all of a user but some', async ({ connect, own }) => {
  const user = `but-some-${own}`;
  const [ann, kept] = [await connect({ token: cluster.token(user) }), await connect({ token: cluster.token(user) })];
  const gone = new Heard(ann, 'disconnected');
  const stays = new Heard(kept, 'disconnected');
  const { connections } = await call(cluster.internal, 'connections', { user });
  assert.deepEqual(Object.keys(connections).sort(), [ann._client, kept._client].sort());
  assert.ok(Object.values(connections).every((it) => it.user === user));
  await call(cluster.internal, 'disconnect', { user, whitelist: [kept._client], disconnect: { code: 4500, reason: 'bye' } });
  assert.equal((await gone.first()).code, 3503);
  await until('it alone is left', async () => Object.keys((await call(cluster.internal, 'connections', { user })).connections).length === 1);
  assert.deepEqual(stays.all, []);
});

each('what tokens say of a channel others see there, and the client is told', async ({ connect, client, own }) => {
  const channel = `room:terms-${own}`;
  const subs = { [channel]: { info: { seat: 7 }, data: { hello: 'Ann' }, override: { force_push_join_leave: { value: true } } } };
  const bob = await connect({ token: cluster.token('bob') });
  const heard = new Heard(await subscribed(bob, channel), 'publication');
  const ann = client({ token: cluster.token('ann', { info: { name: 'Ann' }, subs, meta: { plan: 'free' } }) });
  const entered = new Heard(ann, 'subscribed');
  const joined = new Heard(ann, 'join');
  ann.connect();
  const listed = await entered.first((it) => it.channel === channel);
  assert.deepEqual(said(listed.data), { hello: 'Ann' });
  await bounded(ann.publish(channel, saying(ann, 1)), 'published');
  const { info } = await heard.first();
  assert.deepEqual([said(info.connInfo), said(info.chanInfo), info.client], [{ name: 'Ann' }, { seat: 7 }, ann._client]);
  const eve = await connect({ token: cluster.token('eve') });
  await subscribed(eve, channel);
  assert.equal((await joined.first((it) => it.info.user === 'eve')).channel, channel);
  const pass = signed({ sub: 'bob', channel: `vip:${own}`, info: { seat: 8 }, data: 'welcome' });
  const vip = bob.newSubscription(`vip:${own}`, { token: pass });
  const letIn = new Heard(vip, 'subscribed');
  vip.subscribe();
  assert.equal(said((await letIn.first()).data), 'welcome');
});

each('native clients and those of Centrifugo hear each other', async ({ connect }) => {
  const channel = `room:cross-${Math.random()}`;
  const ann = await connect({ token: cluster.token('ann') });
  const subscription = await subscribed(ann, channel);
  const heard = new Heard(subscription, 'publication');
  const native = new WebSocket(`${cluster.url.replace('http', 'ws')}/ws`, 'fanfare.v1.json');
  const told = [];
  let tell;
  const news = new Promise((resolve) => { tell = resolve; });
  native.on('message', (text) => {
    const event = JSON.parse(text);
    told.push(event);
    if (event.type === 'welcome') native.send(JSON.stringify({ type: 'subscribe', id: 1, channel }));
    if (event.type === 'subscribed') native.send(JSON.stringify({ type: 'publish', id: 2, channel, data: { from: 'native' } }));
    if (event.type === 'message' && event.data.from === 'centrifuge') tell(event);
  });
  assert.deepEqual(said((await heard.first()).data), { from: 'native' });
  await subscription.publish(saying(ann, { from: 'centrifuge' }));
  const message = await bounded(news, 'heard by the native client');
  assert.deepEqual([message.from.user, message.offset], ['ann', 2]);
  native.close();
});

/** What the application was asked of this kind, by these clients alone. */
async function asked(type, is) {
  const questions = await (await fetch(new URL('hook', process.env.FANFARE_APPLICATION_URL))).json();
  return questions.filter((it) => it.type === type && is(it));
}

each('a backend answers calls, and hears what it is told, and what the token says for it alone', async ({ connect, own }) => {
  const user = `caller-${own}`;
  const ann = await connect({ token: cluster.token(user, { meta: { plan: 'free' } }) });
  const { data } = await bounded(ann.rpc('price', saying(ann, 'tea')), 'answered');
  assert.deepEqual(said(data), { of: 'tea', for: user, plan: 'free' });
  assert.equal(await refusal(ann.rpc('cost', saying(ann, null))), 103);
  await ann.send(saying(ann, { seen: 7 }));
  await bounded(ann.rpc('price', saying(ann, 0)), 'answered after that');
  let told;
  await until('told', async () => {
    told = await asked('tell', (it) => it.user === user);
    return told.length > 0;
  });
  assert.deepEqual(told.map((it) => [it.data, it.meta]), [[{ seen: 7 }, { plan: 'free' }]]);
  assert.deepEqual(await call(cluster.internal, 'rpc', { method: 'price', params: 'cake' }), { data: { of: 'cake', for: null } });
  assert.equal((await call(cluster.internal, 'rpc', { method: 'cost' })).error.code, 103);
});

each('a backend is told what a client says when it connects', async ({ connect, own }) => {
  const nobody = await connect();
  const as = `told-${own}`;
  const ann = await connect({ data: saying(nobody, { as }) });
  const heard = new Heard(await subscribed(nobody, `room:told-${own}`), 'publication');
  await (await subscribed(ann, `room:told-${own}`)).publish(saying(ann, 'it is me'));
  assert.equal((await heard.first()).info.user, as);
  assert.equal((await asked('connect', (it) => it.data.as === as)).length, 1);
});
