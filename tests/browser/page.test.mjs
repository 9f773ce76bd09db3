/** The console page, as a person meets it: in a real browser, against the gateway at FANFARE_URL. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Tabs, WAIT_MS, launch, picture } from './support/browser.mjs';
import { Link } from './support/link.mjs';

const URL_BASE = process.env.FANFARE_URL?.replace(/\/$/, '');
assert.ok(URL_BASE, 'FANFARE_URL names the gateway to test, such as http://127.0.0.1:8000');

const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
  + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const CUT = /WebSocket connection to|Failed to load resource: net::ERR_/;

let browser;
let tabs;
before(async () => { browser = await launch(); });
after(() => browser?.close());
beforeEach(() => { tabs = new Tabs(browser); });
afterEach(() => tabs.close());

/** A channel nobody else has: tests neither see each other nor what an earlier run left in history. */
const fresh = () => `room:${randomUUID().slice(0, 8)}`;
const hash = (...channels) => `#${channels.map((it) => `channel=${it}`).join('&')}`;

const messages = (page) => page.locator('#log .message');
const withText = (page, text) => messages(page).filter({ has: page.locator('.body', { hasText: text }) });
const state = (page, name) => page.locator(`#state[data-state="${name}"]`).waitFor();
const joined = (page, channel) => page.locator(`#joined [data-state="joined"][data-channel="${channel}"]`).waitFor();

async function join(page, channel) {
  await page.getByLabel('Channel to join').fill(channel);
  await page.getByRole('button', { name: 'Join', exact: true }).click();
  await joined(page, channel);
}

async function say(page, text, channel) {
  if (channel) await page.getByLabel('Channel to publish to').selectOption(channel);
  await page.getByLabel('Message: text, or any JSON').fill(text);
  await page.getByRole('button', { name: 'Send' }).click();
}

/** The text of a figure on the page, as a number. */
const figure = async (page, id) => Number((await page.locator(`#${id}`).textContent()).replaceAll(',', ''));

async function until(what, holds) {
  const deadline = performance.now() + WAIT_MS;
  while (!(await holds())) {
    assert.ok(performance.now() < deadline, `in ${WAIT_MS} ms it did not happen: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('the page and its assets carry the strict policy', async () => {
  for (const path of ['/', '/console/base.css', '/console/console.css', '/console/console.js', '/console/connection.js', '/console/fallback.js', '/console/favicon.svg']) {
    const answer = await fetch(URL_BASE + path);
    assert.equal(answer.status, 200, path);
    assert.equal(answer.headers.get('content-security-policy'), POLICY, path);
    assert.equal(answer.headers.get('x-content-type-options'), 'nosniff', path);
    assert.equal(answer.headers.get('referrer-policy'), 'no-referrer', path);
  }
});

test('the page needs no exception from the policy', async () => {
  const page = await tabs.open(URL_BASE + hash(fresh()));
  await state(page, 'open');
  assert.equal(await page.locator('[style], style, script:not([src]), [src^="data:"]').count(), 0);
});

test('a message typed in one tab arrives once in the other, and once in its own', async () => {
  const channel = fresh();
  const first = await tabs.open(URL_BASE);
  await state(first, 'open');
  await picture(first, 'newcomer');
  await join(first, channel);

  const link = await first.getByRole('link', { name: /Open a second tab/ }).getAttribute('href');
  const second = await tabs.open(new URL(link, URL_BASE).href);
  await joined(second, channel);

  await say(first, 'can you hear me?');
  await withText(second, 'can you hear me?').waitFor();
  await say(second, 'loud and clear');
  await say(first, '{"lights":"on","level":0.8}');
  // Channels keep their order: whatever a message could have been doubled into is there before the last word.
  await say(second, 'over');
  for (const page of [first, second]) {
    await withText(page, 'over').waitFor();
    assert.deepEqual(
      await messages(page).locator('.body').allTextContents(),
      ['can you hear me?', 'loud and clear', '{"lights":"on","level":0.8}', 'over'],
    );
  }
  assert.equal(await withText(first, 'can you hear me?').locator('.own').count(), 1);
  assert.equal(await withText(second, 'can you hear me?').locator('.own').count(), 0);
  await picture(first, 'two-tabs');
});

test('the link opens a real second tab that joins by itself', async () => {
  const channel = fresh();
  const first = await tabs.open(URL_BASE + hash(channel));
  await joined(first, channel);
  const opening = first.context().waitForEvent('page');
  await first.getByRole('link', { name: /Open a second tab/ }).click();
  const second = await opening;
  tabs.watch(second, new URL(URL_BASE).origin);
  await joined(second, channel);
  await say(second, 'from the second');
  await withText(first, 'from the second').waitFor();
});

test('the counts of connections and messages move', async () => {
  const channel = fresh();
  const first = await tabs.open(URL_BASE + hash(channel));
  const second = await tabs.open(URL_BASE + hash(channel));
  await joined(first, channel);
  await joined(second, channel);
  await until('two connections are shown', async () => (await figure(first, 'connections')) >= 2);
  await until('a first count is shown', async () => (await figure(first, 'sent')) >= 1);
  const before = { in: await figure(first, 'received'), out: await figure(first, 'sent') };
  for (let i = 1; i <= 20; i += 1) await say(second, `tick ${i}`);
  await withText(first, 'tick 20').waitFor();
  await until('messages in counts each', async () => (await figure(first, 'received')) >= before.in + 20);
  await until('messages out counts each receiver', async () => (await figure(first, 'sent')) >= before.out + 40);
  await first.locator('#spark-out polyline[points*=" "]').waitFor({ state: 'attached' });
  assert.equal(await figure(first, 'heard'), 20);
});

test('channels are joined, left and kept apart', async () => {
  const [a, b] = [fresh(), fresh()];
  const page = await tabs.open(URL_BASE + hash(a, b));
  const other = await tabs.open(URL_BASE + hash(a, b));
  for (const channel of [a, b]) {
    await joined(page, channel);
    await joined(other, channel);
  }
  await page.getByRole('button', { name: `Leave ${a}` }).click();
  assert.equal(new URL(page.url()).hash, hash(b));
  await say(other, 'for a', a);
  await withText(other, 'for a').waitFor();
  await say(other, 'for b', b);
  await withText(page, 'for b').waitFor();
  assert.deepEqual(await messages(page).locator('.tag').allTextContents(), [b]);
});

test('a page whose connection is cut comes back, and rejoins its channels', async () => {
  const channels = [fresh(), fresh()];
  const link = new Link(URL_BASE);
  await link.mend();
  try {
    const page = await tabs.open(link.url + hash(...channels), { expected: CUT });
    const other = await tabs.open(URL_BASE + hash(...channels));
    for (const channel of channels) {
      await joined(page, channel);
      await joined(other, channel);
    }
    const session = await page.locator('#session').textContent();

    await link.cut();
    await state(page, 'waiting');
    assert.ok(await page.getByRole('button', { name: 'Send' }).isDisabled());
    await picture(page, 'reconnecting');

    await link.mend();
    for (const channel of channels) await joined(page, channel);
    await state(page, 'open');
    assert.notEqual(await page.locator('#session').textContent(), session);
    for (const channel of channels) {
      await say(other, `after the cut, on ${channel}`, channel);
      await withText(page, `after the cut, on ${channel}`).waitFor();
    }
    await say(page, 'and back', channels[0]);
    await withText(other, 'and back').waitFor();
    assert.equal(await withText(page, 'after the cut').count(), 2);
  } finally {
    await link.cut();
  }
});

test('hostile text is shown, not obeyed', async () => {
  const channel = fresh();
  const hostile = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>';
  const first = await tabs.open(URL_BASE + hash(channel));
  const second = await tabs.open(URL_BASE + hash(channel));
  await joined(first, channel);
  await joined(second, channel);
  await say(first, hostile);
  await say(first, JSON.stringify({ [hostile]: hostile }));
  await withText(second, '{"').waitFor();
  assert.deepEqual(await messages(second).locator('.body').allTextContents(), [hostile, JSON.stringify({ [hostile]: hostile })]);
  assert.equal(await second.locator('#log img, #log script').count(), 0);
  assert.equal(await second.title(), 'Fanfare');
});

test('hostile channel names from the address are shown, not obeyed', async () => {
  const channel = `<img/src=x/onerror=alert(1)>${randomUUID()}`;
  const page = await tabs.open(`${URL_BASE}#channel=${encodeURIComponent(channel)}`);
  await page.locator('#joined .tag', { hasText: channel }).waitFor();
  assert.equal(await page.locator('#joined img').count(), 0);
});

test('an error is shown with its code and what the server said', async () => {
  const channel = fresh();
  const heard = [];
  const prepare = (page) => page.on('websocket', (socket) => {
    socket.on('framereceived', ({ payload }) => heard.push(...[JSON.parse(payload)].flat()));
  });
  const page = await tabs.open(URL_BASE + hash(channel), { prepare });
  await joined(page, channel);
  // The page does not let a person ask for such a name; the server must be the one to refuse it here.
  await page.getByLabel('Channel to join').evaluate((input) => input.removeAttribute('pattern'));
  await page.getByLabel('Channel to join').fill('two words');
  await page.getByRole('button', { name: 'Join', exact: true }).click();
  await page.locator('#joined [data-state="refused"]').waitFor();
  const { code, reason, message } = heard.find((it) => it.type === 'error');
  const shown = await page.locator('#log .bad .body').textContent();
  for (const part of [String(code), reason, message]) assert.ok(shown.includes(part), `${shown} tells ${part}`);
  await picture(page, 'refused');
});

test('only the last 200 messages stay in the page', async () => {
  const channel = fresh();
  const page = await tabs.open(URL_BASE + hash(channel));
  await joined(page, channel);
  // Each line waits until the one before it is on the page, which keeps under any node's rate limit.
  await page.evaluate(async (lines) => {
    for (let i = 1; i <= lines; i += 1) {
      document.getElementById('text').value = `line ${i}`;
      document.getElementById('publish').requestSubmit();
      while (document.getElementById('heard').textContent !== String(i)) await new Promise(requestAnimationFrame);
    }
  }, 230);
  const lines = await messages(page).locator('.body').allTextContents();
  assert.deepEqual(lines, Array.from({ length: 200 }, (_, i) => `line ${i + 31}`));
  const { bottom, end } = await page.locator('#scroll').evaluate((it) => ({ bottom: it.scrollTop + it.clientHeight, end: it.scrollHeight }));
  assert.ok(end - bottom < 2, 'the newest is in view');
  await picture(page, 'many');
});

test('the keyboard alone joins, speaks and leaves', async () => {
  const channel = fresh();
  const page = await tabs.open(URL_BASE);
  await state(page, 'open');
  await page.keyboard.type(channel);
  await page.keyboard.press('Enter');
  await joined(page, channel);
  await page.keyboard.type('by hand');
  await page.keyboard.press('Enter');
  await withText(page, 'by hand').waitFor();
  await page.getByRole('button', { name: `Leave ${channel}` }).focus();
  await page.keyboard.press('Enter');
  await until('the channel is gone', async () => (await page.locator('#joined li').count()) === 0);
});

for (const [name, width] of [['phone', 320], ['large phone', 430], ['tablet', 768], ['desktop', 1280]]) {
  test(`nothing scrolls sideways on a ${name}`, async () => {
    const channel = fresh();
    const page = await tabs.open(URL_BASE + hash(channel, `${channel}:${'long'.repeat(40)}`), { viewport: { width, height: 800 } });
    await joined(page, channel);
    await say(page, 'w'.repeat(600), channel);
    await say(page, 'hello from a small screen');
    await withText(page, 'hello').waitFor();
    // The list of messages hides what is too wide for it: nothing may be.
    for (const part of ['html', '#scroll', '.channels', '.facts']) {
      const { needed, given } = await page.locator(part).evaluate((it) => ({ needed: it.scrollWidth, given: it.clientWidth }));
      assert.ok(needed <= given, `${part} needs ${needed} px and has ${given}`);
    }
    await picture(page, `width-${width}`);
  });
}

test('dark and light follow the person, and both can be read', async () => {
  const channel = fresh();
  const grounds = [];
  for (const colorScheme of ['light', 'dark']) {
    const page = await tabs.open(URL_BASE + hash(channel), { colorScheme });
    await joined(page, channel);
    await say(page, `it is ${colorScheme}`);
    await withText(page, `it is ${colorScheme}`).waitFor();
    const { ground, contrasts } = await page.evaluate(contrastsOfPage);
    grounds.push(ground);
    for (const [what, ratio] of contrasts) assert.ok(ratio >= 4.5, `${what} on ${colorScheme}: ${ratio.toFixed(2)}`);
    await picture(page, colorScheme);
  }
  assert.ok(grounds[0] > 0.7 && grounds[1] < 0.1, `luminance of the grounds: ${grounds}`);
});

/** Runs in the page: WCAG contrast of each text against what is painted behind it. */
function contrastsOfPage() {
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const pixel = (...layers) => {
    for (const layer of layers) {
      pen.fillStyle = layer;
      pen.fillRect(0, 0, 1, 1);
    }
    return pen.getImageData(0, 0, 1, 1).data;
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((it) => (it / 255 <= 0.04045 ? it / 255 / 12.92 : ((it / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    const layers = [];
    for (let it = element; it; it = it.parentElement) layers.unshift(getComputedStyle(it).backgroundColor);
    return ['white', ...layers];
  };
  document.getAnimations().forEach((it) => it.finish?.());
  const kinds = ['h1', 'h2', '.figure', '.detail', '.hint', '.second', '.pill', '.at', '.body', '.tag', '.mark.own', '.standing', 'dt', 'dd', '#send'];
  const contrasts = kinds.flatMap((kind) => {
    const element = document.querySelector(kind);
    if (!element) return [];
    const ground = luminance(pixel(...behind(element)));
    const ink = luminance(pixel(...behind(element), getComputedStyle(element).color));
    return [[kind, (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05)]];
  });
  return { ground: luminance(pixel('white', getComputedStyle(document.body).backgroundColor)), contrasts };
}
