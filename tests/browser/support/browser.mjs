/**
 * A headless Chromium whose tabs are strict: whatever a page prints as an error, throws, or asks of a
 * host other than its own fails the test that opened it. A violation of the Content-Security-Policy is
 * printed as an error by the browser.
 */

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

export const WAIT_MS = 20_000;

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: FLAGS });
}

/** Tabs of one test, each in a context of its own: nothing is shared but the server. */
export class Tabs {
  #browser;
  #contexts = [];
  #faults = [];

  constructor(browser) {
    this.#browser = browser;
  }

  /**
   * `expected` matches the errors that this test provokes, such as those of a connection that is cut;
   * `prepare` meets the page before it has loaded anything; `origins` are other hosts that the page may ask.
   */
  async open(url, { expected, prepare, origins = [], ...options } = {}) {
    const context = await this.#browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
    this.#contexts.push(context);
    const page = await context.newPage();
    page.setDefaultTimeout(WAIT_MS);
    this.watch(page, [new URL(url).origin, ...origins], expected);
    await prepare?.(page);
    await page.goto(url);
    return page;
  }

  watch(page, origins, expected) {
    const fault = (text) => {
      if (!expected?.test(text)) this.#faults.push(text);
    };
    page.on('console', (line) => ['error', 'warning'].includes(line.type()) && fault(line.text()));
    page.on('pageerror', (error) => fault(String(error)));
    page.on('request', (request) => [origins].flat().includes(new URL(request.url()).origin) || fault(`asked ${request.url()}`));
  }

  async close() {
    await Promise.all(this.#contexts.map((context) => context.close()));
    assert.deepEqual(this.#faults, [], 'the browser complained');
  }
}

/** Fails on what axe finds wrong for people who do not see, or see little contrast. */
export async function accessible(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    document.getAnimations().forEach((it) => it.finish());
    const { violations } = await window.axe.run({ resultTypes: ['violations'] });
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((it) => `${it.html} ${it.any.map((why) => why.message).join('; ')}`).join(' | ')}`);
  });
  assert.deepEqual(found, []);
}

/** Keeps a picture for a person to look at, where one was asked for. */
export async function picture(page, name) {
  const folder = process.env.SCREENSHOTS;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  // A bar that sticks would be in the middle of the picture.
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: join(folder, `${name}.png`), animations: 'disabled', fullPage: true });
}
