/** Where a WebSocket is blocked: a browser's own EventSource, and POST, against the gateway at FANFARE_URL. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Tabs, launch } from './support/browser.mjs';
import { Link } from './support/link.mjs';

const URL_BASE = process.env.FANFARE_URL?.replace(/\/$/, '');
assert.ok(URL_BASE, 'FANFARE_URL names the gateway to test, such as http://127.0.0.1:8000');

/** What the browser prints when a connection is refused or cut. */
const CUT = /WebSocket connection to|Failed to load resource: net::ERR_/;

let browser;
let tabs;
let link;
before(async () => { browser = await launch(); });
after(() => browser?.close());
beforeEach(async () => {
  tabs = new Tabs(browser);
  link = new Link(URL_BASE, { refuses: /^GET \/ws/ });
  await link.mend();
});
afterEach(async () => {
  await tabs.close();
  await link.cut();
});

const publish = async (base, channel, data) => {
  const answer = await fetch(`${base}/publish`, { method: 'POST', body: JSON.stringify({ channel, data }) });
  assert.equal(answer.status, 200);
  return answer.json();
};

/** Has the page listen by EventSource to what `heard` of the page then holds. */
const listen = (page, channels) => page.evaluate((names) => {
  const query = names.map((it) => `channel=${encodeURIComponent(it)}`).join('&');
  window.heard = [];
  window.opened = 0;
  window.source = new EventSource(`/sse?${query}`);
  window.source.onopen = () => { window.opened += 1; };
  window.source.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === 'message') window.heard.push([event.channel, event.data]);
    else window.heard.push([event.type, event.recovered]);
  };
}, channels);

const hasHeard = (page, last) => page.waitForFunction(
  ([channel, data]) => window.heard.some((it) => it[0] === channel && it[1] === data),
  last,
);

test('a browser whose WebSocket is refused hears and speaks by SSE and POST', async () => {
  const channel = `room:${randomUUID()}`;
  const page = await tabs.open(link.url, { expected: CUT });
  const refused = await page.evaluate(() => new Promise((resolve) => {
    const socket = new WebSocket(`ws://${location.host}/ws`);
    socket.onopen = () => resolve(false);
    socket.onerror = () => resolve(true);
  }));
  assert.ok(refused, 'this is about a network that lets no WebSocket through');
  await listen(page, [channel]);
  await hasHeard(page, ['subscribed', false]);
  const published = await page.evaluate(async (name) => {
    const body = JSON.stringify({ type: 'publish', id: 7, channel: name, data: 'from the page' });
    return (await fetch('/publish', { method: 'POST', body })).json();
  }, channel);
  assert.deepEqual([published.type, published.id, published.channel], ['published', 7, channel]);
  await hasHeard(page, [channel, 'from the page']);
});

test('an EventSource that is cut misses nothing and hears nothing twice, on none of its channels', async () => {
  const channels = [`room:${randomUUID()}`, `room:${randomUUID()}`];
  const page = await tabs.open(link.url, { expected: CUT });
  await listen(page, channels);
  await page.waitForFunction(() => window.heard.filter(([type]) => type === 'subscribed').length === 2);
  const said = { [channels[0]]: [], [channels[1]]: [] };
  const say = async (count) => {
    for (let i = 0; i < count; i += 1) {
      const channel = channels[i % 2];
      said[channel].push(said[channel].length);
      await publish(URL_BASE, channel, said[channel].at(-1));
    }
  };
  await say(4);
  await hasHeard(page, [channels[1], 1]);
  for (let round = 0; round < 2; round += 1) {
    await link.cut();
    await say(6);
    await link.mend();
    await hasHeard(page, [channels[1], said[channels[1]].at(-1)]);
  }
  await say(2);
  for (const channel of channels) await hasHeard(page, [channel, said[channel].at(-1)]);
  const heard = await page.evaluate(() => window.heard);
  for (const channel of channels) {
    assert.deepEqual(heard.filter(([name]) => name === channel).map(([, data]) => data), said[channel]);
  }
  const entrances = heard.filter(([type]) => type === 'subscribed').map(([, recovered]) => recovered);
  assert.ok(entrances.length >= 6 && entrances.slice(2).every(Boolean), `recovered: ${entrances}`);
  assert.ok(await page.evaluate(() => window.opened) >= 3, 'it came back by itself');
});
