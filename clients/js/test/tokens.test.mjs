/** Who a client is, and goes on being, when its tokens are short-lived: against a gateway that asks for them. */

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Gateway } from '../../../tests/browser/support/gateway.mjs';
import { Link } from '../../../tests/browser/support/link.mjs';
import { Fanfare } from './support/client.mjs';
import { Listener } from './support/listener.mjs';
import { until } from './support/until.mjs';

let gateway;
let open;
before(async () => {
  gateway = await Gateway.start([
    'auth.jwt.hmac_secret=a secret of thirty-two bytes and a few more', 'auth.jwt.leeway_seconds=0', 'auth.anonymous=false',
    'namespaces.room.publish=subscribers', 'namespaces.room.subscribe=authenticated', 'namespaces.room.history.size=1000', 'namespaces.user.history.size=100',
  ]);
});
after(() => gateway?.stop());
beforeEach(() => { open = []; });
afterEach(() => Promise.all(open.map((it) => it.close())));

const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

for (const transport of ['websocket', 'sse']) {
  test(`over ${transport} a token is replaced in time, again and again, and the conversation goes on`, async () => {
    let tokens = 0;
    const getToken = async () => {
      tokens += 1;
      return gateway.token('ann', { exp: inSeconds(3) });
    };
    const it = new Listener(gateway.url, `room:${transport}`, { transports: [transport], getToken });
    open.push(it);
    await it.ready();
    let n = 0;
    while (tokens < 4) {
      n += 1;
      await it.room.publish(n);
    }
    await it.heardAll(n);
    assert.equal(it.losses, 0, `it was never cut off: ${it.states}`);
  });
}

test('over polls a token that has expired is replaced, and nothing is missed', async () => {
  let tokens = 0;
  const getToken = async () => {
    tokens += 1;
    return gateway.token('ann', { exp: inSeconds(2) });
  };
  const options = { transports: ['poll'], getToken };
  const it = new Listener(gateway.url, 'room:poll', options);
  const speaker = new Listener(gateway.url, 'room:poll', { getToken: async () => gateway.token('bob') });
  open.push(it, speaker);
  await Promise.all([it.ready(), speaker.ready()]);
  let n = 0;
  while (tokens < 3) {
    n += 1;
    await speaker.room.publish(n);
  }
  await it.heardAll(n);
});

test('a token that has expired already is replaced by the next, without the application', async () => {
  for (const transport of ['websocket', 'sse', 'poll']) {
    const lifetimes = [-60, 3600];
    const getToken = async () => gateway.token('ann', { exp: inSeconds(lifetimes.shift()) });
    const it = new Listener(gateway.url, 'room:late', { transports: [transport], getToken });
    open.push(it);
    await it.ready();
    assert.equal(lifetimes.length, 0);
  }
});

test('without a way to another token a client stops, and says why', async () => {
  for (const transport of ['websocket', 'sse', 'poll']) {
    const fanfare = new Fanfare(gateway.url, { transports: [transport], token: 'forged' });
    open.push(fanfare);
    const room = fanfare.subscribe('room:1');
    await until(() => fanfare.state.name === 'closed', 'the end');
    assert.deepEqual([fanfare.state.code, fanfare.state.reason], [4401, 'unauthorized'], transport);
    await assert.rejects(room.publish(1), { code: 4401, reason: 'unauthorized', isUncertain: false });
  }
});

test('the personal channel comes by itself, and what was missed on it comes after a lost connection', async () => {
  const wire = new Link(gateway.url);
  await wire.mend();
  const fanfare = new Fanfare(wire.url, { token: gateway.token('ann'), backoff: { baseMs: 100 } });
  const backend = new Fanfare(gateway.url, { token: gateway.token('boss', { allow: [{ channels: ['user:*'], can: ['publish'] }] }) });
  open.push(fanfare, backend, { close: () => wire.cut() });
  const personal = await fanfare.once('subscription');
  assert.equal(personal.channel, 'user:ann');
  const heard = [];
  personal.on('message', ({ data, from }) => heard.push([data, from.user]));
  await until(() => personal.state === 'subscribed');
  await backend.publish('user:ann', 1);
  await until(() => heard.length === 1);
  await wire.cut();
  await until(() => fanfare.state.name !== 'connected');
  await backend.publish('user:ann', 2);
  await wire.mend();
  await until(() => heard.length === 2);
  await backend.publish('user:ann', 3);
  await until(() => heard.length === 3);
  assert.deepEqual(heard, [[1, 'boss'], [2, 'boss'], [3, 'boss']]);
});
