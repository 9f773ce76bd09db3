/**
 * Where a WebSocket is blocked: a browser's own EventSource, the console page, and POST, against the gateway at FANFARE_URL; and,
 * with tokens in cookies and channels for subscribers alone, against one that is started for it.
 */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Tabs, launch } from './support/browser.mjs';
import { Gateway } from './support/gateway.mjs';
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

const joined = (page, channel) => page.locator(`#joined [data-state="joined"][data-channel="${channel}"]`).waitFor();
const bodies = (page) => page.locator('#log .message .body').allTextContents();
const says = async (page, text) => {
  await page.getByLabel('Message: text, or any JSON').fill(text);
  await page.getByRole('button', { name: 'Send' }).click();
};
const shows = (page, text) => page.locator('#log .message .body', { hasText: text }).waitFor();

test('the page falls back to SSE and POST, comes back by them, and returns to WebSocket', async () => {
  const [first, second] = [`room:${randomUUID()}`, `room:${randomUUID()}`];
  const page = await tabs.open(`${link.url}#channel=${first}`, { expected: CUT });
  const other = await tabs.open(`${URL_BASE}#channel=${first}`);
  await joined(page, first);
  await joined(other, first);
  assert.equal(await page.locator('#state').textContent(), 'Connected without WebSocket');
  assert.equal(await other.locator('#state').textContent(), 'Connected');
  await says(page, 'from behind the wall');
  await shows(other, 'from behind the wall');
  await says(other, 'loud and clear');
  await shows(page, 'loud and clear');
  assert.equal(await page.locator('#log .message .own').count(), 1, 'its own is told from others');

  // Another channel is another request; the first goes on where it was.
  await page.getByLabel('Channel to join').fill(second);
  await page.getByRole('button', { name: 'Join', exact: true }).click();
  await joined(page, second);
  await publish(URL_BASE, second, 'to the second');
  await publish(URL_BASE, first, 'to the first');
  await shows(page, 'to the second');
  await shows(page, 'to the first');

  await link.cut();
  await page.locator('#state[data-state="waiting"]').waitFor();
  await publish(URL_BASE, first, 'while it was away');
  await link.mend();
  await shows(page, 'while it was away');
  assert.equal(await page.locator('#state').textContent(), 'Connected without WebSocket');
  assert.deepEqual(
    await bodies(page),
    ['from behind the wall', 'loud and clear', 'to the second', 'to the first', 'while it was away'],
    'nothing was missed, and nothing heard twice',
  );

  await link.cut();
  link.refuses = undefined;
  await link.mend();
  await page.locator('#state', { hasText: /^Connected$/ }).waitFor();
  await publish(URL_BASE, second, 'by WebSocket');
  await shows(page, 'by WebSocket');
});

test('a channel that is refused is told of without WebSocket as well', async () => {
  const channel = `room:${randomUUID()}`;
  const page = await tabs.open(`${link.url}#channel=${channel}`, { expected: new RegExp(`${CUT.source}|status of 400`) });
  await joined(page, channel);
  await page.getByLabel('Channel to join').evaluate((input) => input.removeAttribute('pattern'));
  await page.getByRole('button', { name: `Leave ${channel}` }).click();
  await page.getByLabel('Channel to join').fill('two words');
  await page.getByRole('button', { name: 'Join', exact: true }).click();
  await page.locator('#joined [data-state="refused"]').waitFor();
  assert.match(await page.locator('#log .bad .body').first().textContent(), /4400 bad_request/);
});

test('where only subscribers may publish, a page without WebSocket does, as the user of its cookie', async () => {
  const gateway = await Gateway.start([
    'auth.jwt.hmac_secret=a secret of thirty-two bytes and a few more', 'auth.cookie=session', 'auth.anonymous=false',
    'namespaces.room.publish=subscribers', 'namespaces.room.history.size=10',
  ]);
  try {
    const page = await tabs.open(`${gateway.url}/status`, { expected: /status of 40[34]/ });
    await page.context().addCookies([{ name: 'session', value: gateway.token('ann'), url: gateway.url, sameSite: 'Lax' }]);
    const heard = await page.evaluate(() => new Promise((resolve, reject) => {
      // A GET of this very origin: a browser sends no Origin with it, and says same-origin instead.
      const source = new EventSource('/sse?channel=room:1');
      source.onerror = () => reject(new Error('the EventSource was refused'));
      source.onmessage = async ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === 'welcome') source.ticket = event.ticket;
        if (event.type === 'message') {
          source.close();
          resolve(event);
        }
        if (event.type !== 'subscribed') return;
        const post = (headers) => fetch('/publish', { method: 'POST', headers, body: '{"channel":"room:1","data":"hello"}' });
        const without = await post({});
        if (without.status !== 403) reject(new Error(`without a ticket: ${without.status}`));
        const answer = await post({ authorization: `Ticket ${source.ticket}` });
        if (answer.status !== 200) reject(new Error(await answer.text()));
      };
    }));
    assert.deepEqual([heard.data, heard.from.user], ['hello', 'ann']);
  } finally {
    await gateway.stop();
  }
});
