/** The client in a page of Chromium, minified: over lost connections, offline, and where WebSocket is blocked; and as it is, without a build. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Tabs, launch } from '../../../tests/browser/support/browser.mjs';
import { Gateway } from '../../../tests/browser/support/gateway.mjs';
import { Link } from '../../../tests/browser/support/link.mjs';
import { smallest } from '../scripts/build.mjs';
import { Fanfare } from './support/client.mjs';

const HERE = new URL('../', import.meta.url);
/** What the browser prints when a connection is cut; the gateway is another origin than the page, as it often is. */
const EXPECTED = /WebSocket connection to|Failed to load resource: net::ERR_|^asked http:\/\/127\.0\.0\.1:/;
const MINIFIED = '/fanfare.min.js';
const PAGE = '<!doctype html><title>client</title><link rel="icon" href="data:,">';

let minified;
let browser;
let site;
let gateway;
let tabs;
let wire;
let speaker;
let channel;
before(async () => {
  minified = await smallest();
  // A page that the browser was handed by a test, and not by a server, may open no WebSocket.
  site = createServer(async ({ url }, answer) => {
    if (url === '/') answer.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
    else if (url === MINIFIED) answer.writeHead(200, { 'content-type': 'text/javascript' }).end(minified);
    else answer.writeHead(200, { 'content-type': 'text/javascript' }).end(await readFile(new URL(url.slice(1), HERE)));
  });
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  browser = await launch();
  gateway = await Gateway.start([`origin.allow=["${siteUrl()}"]`]);
});
after(() => {
  site?.close();
  return Promise.all([browser?.close(), gateway?.stop()]);
});
beforeEach(async () => {
  tabs = new Tabs(browser);
  wire = new Link(gateway.url);
  await wire.mend();
  speaker = new Fanfare(gateway.url);
  channel = `room:${randomUUID()}`;
});
afterEach(async () => {
  speaker.close();
  await tabs.close();
  await wire.cut();
});

const siteUrl = () => `http://127.0.0.1:${site.address().port}`;

/** A page with the client's files beside it, listening to the channel. */
async function open(options = {}, client = MINIFIED) {
  const page = await tabs.open(siteUrl(), { expected: EXPECTED });
  await page.evaluate(async ([url, name, more, file]) => {
    const { Fanfare: Client } = await import(file);
    window.fanfare = new Client(url, { backoff: { baseMs: 100, maxMs: 1000 }, ...more });
    window.heard = [];
    window.told = [];
    window.fanfare.on('state', (state) => window.told.push(state.name === 'connected' ? state.transport : state.name));
    const room = window.fanfare.subscribe(name);
    (async () => { for await (const event of room) window.heard.push(event.type === 'message' ? event.data : event.cause); })();
    await room.once('subscribed');
  }, [wire.url, channel, options, client]);
  return page;
}

const say = async (from, to) => {
  for (let n = from; n <= to; n += 1) await speaker.publish(channel, n);
};

async function heardAll(page, last) {
  await page.waitForFunction((n) => window.heard.includes(n), last);
  assert.deepEqual(await page.evaluate(() => window.heard), Array.from({ length: last }, (_, i) => i + 1));
}

const isWaiting = (page) => page.waitForFunction(() => window.fanfare.state.name === 'waiting');

const usesWebSocket = async (page) => assert.equal(await page.evaluate(() => window.told[0]), 'websocket', 'at first');

test('a page that is cut off and comes back has missed nothing and heard nothing twice', async () => {
  const page = await open();
  await usesWebSocket(page);
  await say(1, 5);
  for (const last of [10, 15]) {
    await wire.cut();
    await isWaiting(page);
    await say(last - 4, last);
    await wire.mend();
    await heardAll(page, last);
  }
});

test('a page that is offline waits, and comes back by the event of the browser', async () => {
  // A wait of its own would be an hour.
  const page = await open({ backoff: { baseMs: 1, maxMs: 3_600_000 } });
  await usesWebSocket(page);
  await page.context().setOffline(true);
  await wire.cut();
  await isWaiting(page);
  assert.ok(await page.evaluate(() => window.fanfare.state.waitMs) > 3_000_000, 'it does not hammer');
  await say(1, 3);
  await wire.mend();
  await page.context().setOffline(false);
  await heardAll(page, 3);
});

test('a page whose WebSocket is blocked hears and speaks by SSE, and returns to WebSocket', async () => {
  wire.refuses = /^GET \/ws/;
  const page = await open({ probeMs: 2000 });
  assert.equal(await page.evaluate(() => window.fanfare.state.transport), 'sse');
  await say(1, 3);
  await page.evaluate((name) => window.fanfare.publish(name, 4), channel);
  await heardAll(page, 4);
  wire.refuses = undefined;
  await page.waitForFunction(() => window.fanfare.state.transport === 'websocket');
  await say(5, 8);
  await heardAll(page, 8);
});

test('a page takes the modules as they are, without a build', async () => {
  const page = await open({}, '/index.js');
  await usesWebSocket(page);
  await say(1, 3);
  await wire.cut();
  await isWaiting(page);
  await wire.mend();
  await say(4, 6);
  await heardAll(page, 6);
});

test('a page publishes once what it was saying when its connection was lost', async () => {
  const page = await open();
  await usesWebSocket(page);
  const published = page.evaluate(async (name) => {
    for (let n = 1; n <= 200; n += 1) await window.fanfare.publish(name, n);
  }, channel);
  await page.waitForFunction(() => window.heard.length > 20);
  await wire.cut();
  await isWaiting(page);
  await wire.mend();
  await published;
  await heardAll(page, 200);
});
