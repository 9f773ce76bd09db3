/**
 * The operators' console, as an operator meets it: in a real browser, on the internal listener of one of three nodes with Redis and nginx,
 * with keys of several callers. What is shown is held against what clients of another make have done.
 */

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Cluster } from '../../clients/js/test/support/cluster.mjs';
import { Tabs, WAIT_MS, accessible, launch, picture } from './support/browser.mjs';
import { Crowd } from './support/crowd.mjs';
import { signed } from './support/gateway.mjs';

const SECRET = 'a secret of thirty-two bytes and a few more';
/** What the browser prints of answers that are no success, and of connections that a test ends. */
const REFUSED = /Failed to load resource|WebSocket connection to/;
const HOSTILE = '<img/src=x/onerror="document.title=`owned`"><script>document.title=`owned`</script>';

/** By day, by night and on a phone. */
const LIGHTS = [['light', { width: 1280, height: 900 }], ['dark', { width: 1280, height: 900 }], ['light', { width: 390, height: 844 }]];

let browser;
let cluster;
let tabs;
let crowd;

before(async () => {
  browser = await launch();
  cluster = await Cluster.up({
    nodes: 3,
    FANFARE__AUTH__JWT__HMAC_SECRET: SECRET,
    FANFARE__AUTH__ANONYMOUS: 'true',
    FANFARE__API__KEYS: 'root-key/+=',
    FANFARE__API__CALLERS__EYE__KEYS: 'eye',
    FANFARE__API__CALLERS__EYE__SCOPES: 'read',
    FANFARE__API__CALLERS__NEAR__KEYS: 'near',
    FANFARE__API__CALLERS__NEAR__SCOPES: 'read',
    FANFARE__API__CALLERS__NEAR__CHANNELS: 'room:*',
    FANFARE__LIMITS__CONNECTIONS: '40',
  });
});
after(async () => {
  await browser?.close();
  await cluster?.down();
});
beforeEach(() => {
  tabs = new Tabs(browser);
  crowd = new Crowd();
});
afterEach(async () => {
  crowd.leave();
  await tabs.close();
});

const token = (user, claims = {}) => signed(SECRET, { sub: user, exp: Math.floor(Date.now() / 1000) + 3600, ...claims });
const heading = (page, name) => page.getByRole('heading', { level: 1, name, exact: true }).waitFor();

/** The console, opened with a key. */
async function open(key = 'root-key/+=', { place = '', expected = REFUSED, ...options } = {}) {
  const page = await tabs.open(`${cluster.internals[0]}/${place}`, { expected, ...options });
  await page.getByLabel('A key of the server API').fill(key);
  await page.getByRole('button', { name: 'Open' }).click();
  await page.getByRole('navigation').waitFor();
  return page;
}

async function until(what, holds, waitMs = WAIT_MS) {
  const deadline = performance.now() + waitMs;
  while (!(await holds())) {
    assert.ok(performance.now() < deadline, `in ${waitMs} ms it did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** People in rooms, on all nodes, and something said a few times a second. */
async function busy() {
  const names = ['ann', 'bob', 'cleo', 'dan', 'eve', 'finn'];
  const people = await Promise.all(names.map((name, at) => crowd.join(cluster.url, {
    token: token(name, { info: { name: `${name[0].toUpperCase()}${name.slice(1)}` } }),
    channels: ['room:lobby', `room:${1 + (at % 3)}`, ...(at < 2 ? ['quotes:ACME'] : [])],
  })));
  let count = 0;
  crowd.every(120, () => {
    count += 1;
    const one = people[count % people.length];
    one.say('room:lobby', { text: ['hello', 'who is on call?', 'all calm here', 'deploying in ten minutes'][count % 4] });
    if (count % 2 === 0) people[0].say('quotes:ACME', { bid: 101 + (count % 9) / 10, ask: 101.4 + (count % 7) / 10 });
  });
  return people;
}

test('the page needs no exception from its policy, and asks for a key first', async () => {
  const page = await tabs.open(cluster.internals[0], { expected: REFUSED });
  await page.getByLabel('A key of the server API').waitFor();
  assert.equal(await page.locator('[style], style, script:not([src])').count(), 0);
  assert.equal(await page.getByRole('navigation').count(), 0);
  await accessible(page);
  await picture(page, 'console-key');
  await page.getByLabel('A key of the server API').fill('wrong');
  await page.getByRole('button', { name: 'Open' }).click();
  await page.getByRole('alert').filter({ hasText: 'There is no such key.' }).waitFor();
});

for (const [colorScheme, size] of LIGHTS) {
  const name = size.width < 600 ? 'narrow' : colorScheme;
  test(`the overview shows every node, and its charts move: ${name}`, async () => {
    await busy();
    const page = await open(undefined, { colorScheme, viewport: size });
    await heading(page, 'Overview');
    for (const node of ['node-1', 'node-2', 'node-3']) await page.locator('tbody tr', { hasText: node }).locator('[data-state="ready"]').waitFor();
    await page.getByText('All is well. 3 nodes ready.').waitFor();
    await page.locator('.ranks .tag', { hasText: 'room:lobby' }).waitFor();
    const connections = page.locator('.tile', { hasText: 'Connections' }).locator('.figure');
    await until('six clients are counted', async () => Number(await connections.textContent()) >= 6);
    const line = page.locator('.tile', { hasText: 'Messages out' }).locator('polyline').first();
    const points = async () => ((await line.getAttribute('points')) ?? '').split(' ').length;
    const count = await points();
    // For people the chart has something to show.
    await until('the chart goes on', async () => (await points()) >= count + (process.env.SCREENSHOTS ? 25 : 2), process.env.SCREENSHOTS ? 90_000 : WAIT_MS);
    const delivery = page.locator('.tile', { hasText: 'Delivery' }).locator('.figure');
    await until('deliveries are timed', async () => /ms$/.test(await delivery.textContent()));
    assert.match(await page.getByRole('img', { name: /^Messages out: now/ }).getAttribute('aria-label'), /lowest .* highest /);
    await accessible(page);
    await picture(page, `console-overview-${name}`);
  });

  test(`one channel: found, heard, spoken on, its members and its past: ${name}`, async () => {
    await busy();
    const page = await open(undefined, { colorScheme, viewport: size, place: '#/channels' });
    await heading(page, 'Channels');
    await page.getByRole('searchbox').fill('lobb');
    await page.getByRole('link', { name: 'room:lobby' }).click();
    await heading(page, 'room:lobby');
    await page.locator('.pill[data-state="open"]', { hasText: 'Listening' }).waitFor();
    await page.locator('.talk .message', { hasText: 'who is on call?' }).first().waitFor();
    for (const user of ['ann', 'finn']) await page.locator('.members').getByRole('link', { name: user, exact: true }).waitFor();
    await page.getByLabel('Message: text, or any JSON').fill('{"from":"the console"}');
    await page.getByRole('button', { name: 'Publish' }).click();
    await page.locator('.talk .message .body', { hasText: '{"from":"the console"}' }).waitFor();
    await page.getByRole('button', { name: 'Read again' }).click();
    await page.locator('.past .body', { hasText: '{"from":"the console"}' }).waitFor();
    await accessible(page);
    await picture(page, `console-channel-${name}`);
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.locator('.pill', { hasText: 'Not listening' }).waitFor();
  });

  test(`one client: found, inspected, followed, steered and disconnected: ${name}`, async () => {
    const [ann] = await busy();
    const page = await open(undefined, { colorScheme, viewport: size, place: '#/clients' });
    await heading(page, 'Clients');
    await page.getByRole('searchbox').fill('ann');
    await page.locator(`tbody tr[data-key="${ann.session}"]`).getByRole('link').click();
    await heading(page, 'ann');
    await page.locator('dd', { hasText: ann.session }).waitFor();
    await page.locator('dd', { hasText: ann.node }).waitFor();
    await page.locator('.members').getByRole('link', { name: 'quotes:ACME' }).waitFor();
    await page.getByRole('button', { name: 'Follow' }).click();
    await page.locator('.talk .message .tag', { hasText: 'quotes:ACME' }).first().waitFor();
    await page.getByLabel('Channel to subscribe it to').fill('room:extra');
    await page.getByRole('button', { name: 'Subscribe it', exact: true }).click();
    await page.locator('.members').getByRole('link', { name: 'room:extra' }).waitFor();
    await page.getByRole('button', { name: 'Unsubscribe it from room:extra' }).click();
    await until('it has left', async () => (await page.locator('.members').getByRole('link', { name: 'room:extra' }).count()) === 0);
    await accessible(page);
    await picture(page, `console-client-${name}`);
    await page.getByRole('button', { name: 'Disconnect…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Leave it' }).click();
    await page.getByRole('button', { name: 'Disconnect…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'For good' }).click();
    assert.equal(await ann.ended, 4403);
    await page.getByText('It is not connected.').waitFor();
  });
}

test('figures come by themselves, over the protocol; where they cannot, a node is asked for them', async () => {
  await crowd.join(cluster.url);
  const page = await open();
  const live = page.locator('.bar .pill', { hasText: 'Live' });
  await live.waitFor();
  let asked = 0;
  await page.route('**/api/nodes', (route) => {
    asked += 1;
    return route.abort();
  });
  const connections = page.locator('.tile', { hasText: 'Connections' }).locator('.figure');
  const figure = async () => Number(await connections.textContent());
  const before = await figure();
  await Promise.all(Array.from({ length: 5 }, () => crowd.join(cluster.url)));
  await until('five more are counted', async () => (await figure()) >= before + 5);
  assert.equal(asked, 0);
  assert.ok(await live.isVisible());
  // A full node takes no conversation, and answers all the same.
  const deaf = await tabs.open(cluster.internals[0], { expected: REFUSED, prepare: (it) => it.routeWebSocket(/./, (socket) => socket.close({ code: 1013 })) });
  await deaf.getByLabel('A key of the server API').fill('root-key/+=');
  await deaf.getByRole('button', { name: 'Open' }).click();
  await deaf.locator('.bar .pill', { hasText: 'Asking' }).waitFor();
  await deaf.getByText('All is well. 3 nodes ready.').waitFor();
});

test('a trace tells of one channel on all nodes, step by step, and of the way of each publication', async () => {
  const [ann, bob] = await Promise.all(['ann', 'bob'].map((user, at) => crowd.join(cluster.publics[at], { token: token(user), channels: ['room:lobby'] })));
  const page = await open(undefined, { place: '#/trace' });
  await heading(page, 'Trace');
  await page.getByLabel('Name of the channel or user').fill('room:lobby');
  await page.getByLabel('With what is said').check();
  await page.getByRole('button', { name: 'Trace', exact: true }).click();
  await page.locator('.pill', { hasText: 'Tracing' }).waitFor();
  for (const node of ['node-1', 'node-2', 'node-3']) await page.locator('.tracing .pill[data-state="open"]', { hasText: node }).waitFor();
  ann.say('room:lobby', 'is it traced?');
  const step = (kind, node) => page.locator('.step', { has: page.locator('.kind', { hasText: new RegExp(`^${kind}$`) }) }).filter({ hasText: node });
  await step('published', ann.node).filter({ hasText: 'by ann' }).filter({ hasText: 'is it traced?' }).waitFor();
  for (const [user, node] of [['ann', ann.node], ['bob', bob.node]]) {
    await step('heard', node).first().waitFor();
    await step('written', node).filter({ hasText: `to ${user}` }).first().waitFor();
  }
  const cleo = await crowd.join(cluster.publics[2], { token: token('cleo'), channels: ['room:lobby'] });
  await step('subscribed', cleo.node).filter({ hasText: 'cleo' }).waitFor();
  ann.say('room:lobby', 'and this?');
  await step('written', cleo.node).filter({ hasText: 'to cleo' }).first().waitFor();
  // Its way: on each node heard and written once, and its steps marked among the others.
  const way = page.locator('.ways > li').first();
  await way.getByRole('button', { name: /by ann/ }).click();
  for (const { node } of [ann, bob, cleo]) await way.locator('.way li', { hasText: node }).filter({ hasText: '1 written' }).waitFor();
  await way.locator('.way li', { hasText: `placed for ${ann.node}` }).waitFor();
  await page.locator('.step.chosen').first().waitFor();
  assert.ok(await page.locator('.step:not(.chosen)').count() > 0);
  await page.getByLabel('Deliveries').uncheck();
  assert.ok(await step('published', ann.node).first().isVisible());
  assert.ok(!(await step('written', ann.node).first().isVisible()));
  await page.getByLabel('Deliveries').check();
  cleo.leave();
  await step('disconnected', cleo.node).filter({ hasText: 'cleo' }).waitFor();
  for (const [colorScheme, size] of LIGHTS) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(size);
    const { needed, given } = await page.locator('html').evaluate((it) => ({ needed: it.scrollWidth, given: it.clientWidth }));
    assert.ok(needed <= given, `it needs ${needed} px and has ${given}`);
    await accessible(page);
    await picture(page, `console-trace-${size.width < 600 ? 'narrow' : colorScheme}`);
  }
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.locator('.pill', { hasText: 'Not tracing' }).waitFor();
});

test('a trace tells of one user, whatever node it is on and whatever channels it hears; a node that dies is told, and one that starts', async () => {
  const page = await open(undefined, { place: '#/trace?user=ann' });
  for (const node of ['node-1', 'node-2', 'node-3']) await page.locator('.tracing .pill[data-state="open"]', { hasText: node }).waitFor();
  const ann = await crowd.join(cluster.publics[2], { token: token('ann'), channels: ['room:1', 'room:2'] });
  const step = (kind) => page.locator('.step', { has: page.locator('.kind', { hasText: new RegExp(`^${kind}$`) }) });
  await step('connected').filter({ hasText: 'by websocket' }).waitFor();
  for (const channel of ['room:1', 'room:2']) await step('subscribed').filter({ hasText: channel }).waitFor();
  await step('subscribed').first().getByRole('link', { name: 'ann' }).click();
  await heading(page, 'ann');
  await page.getByRole('link', { name: 'Trace this user' }).click();
  await page.locator('.pill', { hasText: 'Tracing' }).waitFor();
  await page.locator('.tracing .pill[data-state="open"]', { hasText: ann.node }).waitFor();
  await cluster.kill('node-3');
  await page.locator('.tracing .pill[data-state="stopped"]', { hasText: 'node-3' }).waitFor();
  await cluster.restart('node-3');
  await page.locator('.tracing .pill[data-state="open"]', { hasText: 'node-3' }).waitFor();
});

test('who may only read is offered nothing else, and the server would refuse it', async () => {
  const [ann] = await busy();
  const page = await open('eye');
  await page.getByText('eye: read only').waitFor();
  assert.deepEqual(await page.getByRole('navigation').getByRole('link').allTextContents(), ['Overview', 'Channels', 'Clients']);
  await page.goto(`${cluster.internals[0]}/#/client/${ann.session}`);
  await heading(page, 'ann');
  await page.locator('.members').getByRole('link', { name: 'room:lobby' }).waitFor();
  for (const name of [/^Disconnect/, /^Subscribe it/, /^Unsubscribe/]) assert.equal(await page.getByRole('button', { name }).count(), 0, String(name));
  await page.locator('.members').getByRole('link', { name: 'room:lobby' }).click();
  await page.locator('.pill', { hasText: 'Listening' }).waitFor();
  for (const name of [/^Publish/, /^Forget/]) assert.equal(await page.getByRole('button', { name }).count(), 0, String(name));
  const statuses = await page.evaluate((session) => Promise.all([
    ['disconnect', { session }],
    ['unsubscribe', { session, channel: 'room:lobby' }],
    ['publish', { channel: 'room:lobby', data: 1 }],
    ['history/remove', { channel: 'room:lobby' }],
  ].map(async ([method, body]) => {
    const headers = { authorization: `Bearer ${sessionStorage.getItem('fanfare.key')}` };
    return (await fetch(`/api/${method}`, { method: 'POST', headers, body: JSON.stringify(body) })).status;
  })), ann.session);
  assert.deepEqual(statuses, [403, 403, 403, 403]);
});

test('who is limited to some channels sees those, and no cluster', async () => {
  await busy();
  const page = await open('near');
  await heading(page, 'Channels');
  await page.getByRole('link', { name: 'room:lobby' }).waitFor();
  assert.equal(await page.getByRole('link', { name: 'quotes:ACME' }).count(), 0);
  assert.deepEqual(await page.getByRole('navigation').getByRole('link').allTextContents(), ['Channels']);
  await page.getByRole('link', { name: 'room:lobby' }).click();
  await page.locator('.talk .message').first().waitFor();
});

test('hostile names and payloads are shown, not obeyed', async () => {
  const channel = HOSTILE.replaceAll(' ', '/');
  const mallory = await crowd.join(cluster.url, { token: token(HOSTILE, { info: { name: HOSTILE } }), channels: [channel] });
  const page = await open(undefined, { place: `#/channel/${encodeURIComponent(channel)}` });
  await heading(page, channel);
  await page.locator('.pill', { hasText: 'Listening' }).waitFor();
  mallory.say(channel, HOSTILE);
  mallory.say(channel, { [HOSTILE]: [HOSTILE] });
  await page.locator('.talk .body.json').waitFor();
  assert.deepEqual(await page.locator('.talk .message .body').allTextContents(), [HOSTILE, JSON.stringify({ [HOSTILE]: [HOSTILE] })]);
  await page.locator('.talk .who', { hasText: HOSTILE }).first().waitFor();
  await page.locator('.members').getByRole('link', { name: HOSTILE, exact: true }).click();
  await heading(page, HOSTILE);
  await page.getByRole('button', { name: 'Disconnect…' }).waitFor();
  for (const place of ['#/', '#/channels', '#/clients', `#/channels?q=${encodeURIComponent(channel)}`, `#/${encodeURIComponent(HOSTILE)}`, '#/channel/%']) {
    await page.goto(`${cluster.internals[0]}/${place}`);
    await page.getByRole('heading', { level: 1 }).waitFor();
    await page.waitForLoadState('networkidle').catch(() => {});
  }
  for (const place of ['#/channels', '#/clients']) {
    await page.goto(`${cluster.internals[0]}/${place}`);
    await page.locator('main').getByText(place === '#/clients' ? HOSTILE : channel).first().waitFor();
    assert.equal(await page.locator('main img, main script, main iframe').count(), 0);
  }
  assert.match(await page.title(), /· Fanfare$/);
});

test('the keyboard alone goes anywhere', async () => {
  await busy();
  const page = await tabs.open(cluster.internals[0], { expected: REFUSED });
  await page.getByLabel('A key of the server API').waitFor();
  await page.keyboard.type('root-key/+=');
  await page.keyboard.press('Enter');
  await heading(page, 'Overview');
  await page.keyboard.press('l');
  await heading(page, 'Clients');
  await page.keyboard.press('/');
  await page.keyboard.type('bob');
  await until('one is left', async () => (await page.locator('tbody tr').count()) === 1);
  await page.locator('tbody a').focus();
  await page.keyboard.press('Enter');
  await heading(page, 'bob');
  assert.ok(await page.locator('h1').evaluate((it) => it === document.activeElement), 'a screen reader goes on at the heading');
  await page.getByRole('button', { name: 'Disconnect…' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.press('Escape');
  await until('the question is withdrawn', async () => (await page.getByRole('dialog').count()) === 0);
  await page.keyboard.press('c');
  await heading(page, 'Channels');
  await page.keyboard.press('/');
  await page.keyboard.type('nobody:here');
  await page.keyboard.press('Enter');
  await heading(page, 'nobody:here');
});

for (const width of [320, 430, 768]) {
  test(`nothing scrolls sideways at ${width} pixels`, async () => {
    const long = `room:${'long'.repeat(50)}`;
    const mallory = await crowd.join(cluster.url, { token: token('u'.repeat(60)), channels: [long] });
    const page = await open(undefined, { viewport: { width, height: 800 } });
    for (const place of ['#/', '#/channels', '#/clients', '#/trace', `#/trace?channel=${encodeURIComponent(long)}`, `#/channel/${encodeURIComponent(long)}`, `#/client/${mallory.session}`]) {
      await page.goto(`${cluster.internals[0]}/${place}`);
      await page.getByRole('heading', { level: 1 }).waitFor();
      if (place.includes('trace?')) {
        await page.locator('.tracing .pill[data-state="open"]').first().waitFor();
        mallory.say(long, 'w'.repeat(600));
        await page.locator('.step').first().waitFor();
      }
      if (place.includes('channel/')) {
        await page.locator('.pill', { hasText: 'Listening' }).waitFor();
        mallory.say(long, 'w'.repeat(600));
        await page.locator('.talk .message').waitFor();
      }
      const { needed, given } = await page.locator('html').evaluate((it) => ({ needed: it.scrollWidth, given: it.clientWidth }));
      assert.ok(needed <= given, `${place} needs ${needed} px and has ${given}`);
    }
  });
}

test('the colours are those of the system, or those that the person chose, also after a reload', async () => {
  const page = await open(undefined, { colorScheme: 'light' });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const day = await ground();
  const button = page.getByRole('button', { name: /^Colours/ });
  await button.click();
  assert.equal(await ground(), day);
  await button.click();
  const night = await ground();
  assert.notEqual(night, day);
  await page.reload();
  await page.getByRole('navigation').waitFor();
  assert.equal(await ground(), night);
  await button.click();
  assert.equal(await ground(), day);
  await page.emulateMedia({ colorScheme: 'dark' });
  assert.equal(await ground(), night);
});

// The last ones: they leave the cluster otherwise than they found it.

test('a full node is told, and so is one that has gone, until it is back', async () => {
  const page = await open();
  await heading(page, 'Overview');
  const alert = (text) => page.locator('.alert', { hasText: text });
  await Promise.all(Array.from({ length: 34 }, () => crowd.join(cluster.publics[1])));
  await alert('connections-near-limit').filter({ hasText: 'node-2 has' }).waitFor();
  crowd.leave();
  await page.getByText('All is well. 3 nodes ready.').waitFor();
  await cluster.kill('node-3');
  await alert('node-3 was there until').waitFor();
  await picture(page, 'console-alerts');
  await accessible(page);
  await cluster.restart('node-3');
  await page.getByText('All is well. 3 nodes ready.').waitFor();
});
