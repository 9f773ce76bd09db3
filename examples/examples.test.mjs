/** The examples, as their readers start them, in a real browser; `backends` in every language that it has a file for. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Fanfare } from '../clients/js/index.js';
import { Tabs, WAIT_MS, accessible, launch, picture } from '../tests/browser/support/browser.mjs';
import { BACKENDS, publish } from './backends/demo.mjs';
import { gateway, start } from './support/start.mjs';

/** For people the charts have something to show. */
const SAMPLES = process.env.SCREENSHOTS ? 100 : 5;

let browser;
let tabs;
let example;
before(async () => { browser = await launch(); });
after(() => browser?.close());
beforeEach(() => { tabs = new Tabs(browser); });
afterEach(async () => {
  try {
    await tabs.close();
  } finally {
    await example?.stop();
    example = undefined;
  }
});

/** A page of an example speaks to two origins: its own, and its gateway's. */
const open = (path = '', options = {}) => tabs.open(example.page + path, { viewport: { width: 900, height: 520 }, origins: [example.public], ...options });
const connected = (page) => page.locator('#state[data-state="connected"]').waitFor();

async function until(what, holds) {
  const deadline = performance.now() + WAIT_MS;
  while (!(await holds())) {
    assert.ok(performance.now() < deadline, `in ${WAIT_MS} ms it did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** By day, by night and on a phone: everything fits, and is there for who does not see it. */
async function looks(page, name) {
  const wide = page.viewportSize();
  for (const [kind, colorScheme, size] of [['dark', 'dark', wide], ['narrow', 'light', { width: 360, height: 700 }], ['', 'light', wide]]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(size);
    const { needed, given } = await page.locator('html').evaluate((it) => ({ needed: it.scrollWidth, given: it.clientWidth }));
    assert.ok(needed <= given, `${name} needs ${needed} px and has ${given}`);
    await accessible(page);
    await picture(page, ['example', name, kind].filter(Boolean).join('-'));
  }
}

test('chat: what is said is heard, by who is there and who comes later; who types is seen; who goes is missed', async () => {
  example = await start('chat');
  const enter = async (name) => {
    const page = await open();
    await page.getByLabel('Your name').fill(name);
    await page.getByRole('button', { name: 'Enter' }).click();
    await connected(page);
    await page.locator('#here li', { hasText: name }).waitFor();
    return page;
  };
  const say = async (page, text) => {
    await page.getByRole('textbox', { name: 'Message' }).fill(text);
    await page.getByRole('button', { name: 'Send' }).click();
  };
  const ann = await enter('Ann');
  await say(ann, 'Is anybody there?');
  await ann.locator('#messages .mine', { hasText: 'Is anybody there?' }).waitFor();
  const bob = await enter('Bob');
  await bob.locator('#messages li', { hasText: 'Is anybody there?' }).waitFor();
  await ann.locator('#here li', { hasText: 'Bob' }).waitFor();
  await bob.getByRole('textbox', { name: 'Message' }).pressSequentially('Yes, <b>me</b>');
  await ann.getByText('Bob is typing…').waitFor();
  await bob.getByRole('button', { name: 'Send' }).click();
  await ann.locator('#messages li', { hasText: 'Yes, <b>me</b>' }).waitFor();
  await say(ann, 'Good. The new release goes out at three, and somebody has to watch the dashboard meanwhile.');
  await bob.locator('#messages li', { hasText: 'at three' }).waitFor();
  assert.equal(await ann.locator('#messages li b').count(), 3, 'names are bold, and nothing that people say is');
  // Who types goes on being seen for as long as it takes to look.
  const typing = setInterval(() => bob.getByRole('textbox', { name: 'Message' }).pressSequentially('…').catch(() => {}), 700);
  await ann.getByText('Bob is typing…').waitFor();
  await looks(ann, 'chat').finally(() => clearInterval(typing));
  await bob.context().close();
  await until('Bob is gone', async () => (await ann.locator('#here li').count()) === 1);
});

test('dashboard: every value that is shown is the newest, and those that were skipped are counted', async () => {
  example = await start('dashboard');
  const page = await open();
  await connected(page);
  await until('every gauge shows something', async () => (await page.locator('.gauges span').allTextContents()).every((it) => /%$/.test(it)));
  await until('the charts go on', async () => (await page.locator('.gauges polyline').first().getAttribute('points')).split(' ').length > SAMPLES);
  await looks(page, 'dashboard');
  // A burst on a channel of its own, heard by a client that counts.
  const fanfare = new Fanfare(example.public);
  const load = fanfare.subscribe('load:burst');
  let [heard, skipped, last] = [0, 0, -1];
  load.on('message', ({ data, conflated = 0 }) => {
    assert.ok(data > last, `${data} comes after ${last}`);
    [heard, skipped, last] = [heard + 1, skipped + conflated, data];
  });
  await load.once('subscribed');
  const commands = Array.from({ length: 1_000 }, (_, at) => ({ method: 'publish', channel: 'load:burst', data: at }));
  const answer = await fetch(`${example.internal}/api/batch`, { method: 'POST', body: JSON.stringify({ commands }) });
  assert.equal(answer.status, 200);
  await until('the last one is heard', async () => last === 999);
  assert.equal(heard + skipped, 1_000);
  assert.ok(skipped > 0, 'of a burst not every value is worth telling');
  fanfare.close();
});

test('cursors: a move in one tab is seen in the other, and a pointer goes with its tab', async () => {
  example = await start('cursors');
  const [one, other] = [await open(), await open()];
  await connected(one);
  await connected(other);
  for (const page of [one, other]) await until('both are there', async () => (await page.locator('#others').textContent()) === '1');
  const box = await one.locator('#board').boundingBox();
  await one.mouse.move(box.x + 10, box.y + 10);
  await one.mouse.move(box.x + box.width / 2, box.y + box.height / 4);
  await other.locator('.cursor').waitFor();
  await until('it is where it was put', async () => {
    const { x, y } = await other.locator('.cursor').boundingBox();
    return Math.abs(x - box.x - box.width / 2) < 4 && Math.abs(y - box.y - box.height / 4) < 4;
  });
  await one.mouse.down();
  await other.locator('.ring').waitFor({ state: 'attached' });
  const third = await open();
  await connected(third);
  await other.locator('#others', { hasText: '2' }).waitFor();
  await third.mouse.move(box.x + box.width / 5, box.y + box.height / 2);
  await until('both are seen', async () => (await other.locator('.cursor').count()) === 2);
  await looks(other, 'cursors');
  await third.context().close();
  await one.context().close();
  await until('the pointer is gone', async () => (await other.locator('.cursor').count()) === 0);
});

test('ticker: quotes come in MessagePack, and only the market makes them', async () => {
  example = await start('ticker');
  const page = await open();
  await connected(page);
  await until('every symbol has a quote', async () => (await page.locator('tbody tr').evaluateAll((rows) => rows.every((it) => Number(it.cells[1].textContent) > 0))));
  const heard = Number(await page.locator('#heard').textContent());
  await until('they go on', async () => Number(await page.locator('#heard').textContent()) > heard + SAMPLES);
  await looks(page, 'ticker');
  const fanfare = new Fanfare(example.public);
  await assert.rejects(fanfare.publish('market:ACME', { bid: 1 }), { code: 4403 });
  fanfare.close();
});

test('sdks: laravel-echo, centrifuge-js and fanfare-client hear the same', async () => {
  example = await start('sdks');
  const page = await open();
  const orders = (id) => page.locator(`#${id} li`).allTextContents();
  await until('all have heard three', async () => (await Promise.all(['echo', 'centrifuge', 'fanfare'].map(orders))).every((it) => it.length >= 3));
  const lists = await Promise.all(['echo', 'centrifuge', 'fanfare'].map(orders));
  const common = lists[0].filter((it) => lists.every((list) => list.includes(it)));
  assert.ok(common.length >= 2, `they have these in common: ${common}`);
  assert.deepEqual(await page.locator('.state').allTextContents(), ['connected', 'connected', 'connected']);
  await looks(page, 'sdks');
});

for (const name of Object.keys(BACKENDS)) {
  test(`backends: what ${name} publishes is heard, and its key opens nothing else`, async () => {
    example = await gateway('backends');
    const fanfare = new Fanfare(example.public);
    const orders = fanfare.subscribe('orders:1');
    const message = orders.once('message');
    await orders.once('subscribed');
    const data = { state: 'shipped', note: `κόσμε "${randomUUID()}"` };
    const { offset } = await publish(name, example.internal, 'orders:1', data);
    const event = await message;
    assert.deepEqual([event.data, event.offset], [data, offset]);
    await assert.rejects(publish(name, example.internal, 'elsewhere:1', data));
    await assert.rejects(publish(name, example.internal, 'orders:1', data, 'a wrong key'));
    fanfare.close();
  });
}
