/** What an operator should know, out of what nodes say: a table. And the scales of the charts. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

// The served files are modules by their script tag, not by a package.json beside them; hence the detour.
const folder = new URL('../../crates/gateway/src/admin/console/operators/', import.meta.url);
const address = (text) => `data:text/javascript;base64,${Buffer.from(text).toString('base64')}`;
const source = (name) => readFile(new URL(name, folder), 'utf8');
const words = address(await source('words.js'));
const { alerts } = await import(address((await source('alerts.js')).replaceAll("'./words.js'", `'${words}'`)));
const { bytes, duration, millis, pattern, rate } = await import(words);
const dom = address('export const make = () => {};');
const { ceiling } = await import(address((await source('chart.js')).replaceAll("'./words.js'", `'${words}'`).replaceAll("'./dom.js'", `'${dom}'`)));

const node = (facts) => ({ node: 'a', version: '1', ready: true, draining: false, failing: [], connections: 10, connections_max: 100, queued_bytes: 0, lag_ms: 1, ...facts });
const told = (facts, more = {}) => alerts({ nodes: [facts].flat(), now: 60_000, ...more }).map(({ level, node: name, text, runbook }) => [level, name, text, runbook]);

test('a cluster that is well has no alerts', () => assert.deepEqual(told([node(), node({ node: 'b' })]), []));

for (const [what, facts, level, part, runbook] of [
  ['the broker is away', { ready: false, failing: ['broker'] }, 'critical', 'no link to the broker', 'broker-away'],
  ['publications are late', { ready: false, failing: ['lag'], lag_ms: 1_500 }, 'critical', '1.5 s late', 'broker-lag'],
  ['positions are not checked', { ready: false, failing: ['positions'] }, 'warning', 'cannot check', 'broker-calls-fail'],
  ['it stood still', { ready: false, failing: ['stall'] }, 'warning', 'stood still', 'delivery-slow'],
  ['a check of a later version fails', { ready: false, failing: ['moon'] }, 'warning', 'not ready: moon', undefined],
  ['an older version says that it is not ready, and not why', { ready: false, failing: undefined }, 'warning', 'is not ready', undefined],
  ['it is draining', { ready: false, draining: true, failing: ['draining'] }, 'notice', 'draining', undefined],
  ['it is nearly full', { connections: 80 }, 'warning', '80 of 100 connections, 80 %', 'connections-near-limit'],
  ['it is full', { connections: 95 }, 'critical', '95 %', 'connections-near-limit'],
  ['clients do not read', { queued_bytes: 64 << 20 }, 'warning', '64.0 MiB', 'slow-consumers'],
]) {
  test(`it is told when ${what}`, () => {
    const [[found, name, text, book], ...rest] = told(node(facts));
    assert.deepEqual([found, name, book, rest], [level, 'a', runbook, []]);
    assert.ok(text.includes(part), text);
  });
}

test('what is just below a bound is not told', () => {
  assert.deepEqual(told([node({ connections: 79 }), node({ node: 'b', queued_bytes: (64 << 20) - 1 }), node({ node: 'c', connections: 9, connections_max: 0 })]), []);
});

test('the worst comes first', () => {
  const levels = told([node({ draining: true, ready: false, version: '2' }), node({ node: 'b', connections: 85 })], { gone: new Map([['c', 55_000]]), trouble: new Error('it burns') });
  assert.deepEqual(levels.map(([level]) => level), ['critical', 'critical', 'warning', 'notice', 'notice']);
  assert.ok(levels[1][2].startsWith('was there until 5 s ago'), levels[1][2]);
});

test('every runbook that is named is there', async () => {
  for (const [, name] of (await source('alerts.js')).matchAll(/'([a-z]+(?:-[a-z]+)+)'/g)) await readFile(new URL(`../../docs/runbooks/${name}.md`, import.meta.url));
});

test('a scale ends at a round number that holds the highest value', () => {
  for (const [highest, end] of [[0, 1], [0.3, 0.5], [1, 1], [1.1, 2], [7, 10], [10, 10], [199, 200], [2_001, 5_000], [Number.NaN, 1]]) assert.equal(ceiling(highest), end);
});

test('numbers are written for people', () => {
  assert.deepEqual([0, 1_023, 1_024, 150 << 20, 3 * 2 ** 30].map((it) => bytes(it)), ['0 B', '1023 B', '1.0 KiB', '150 MiB', '3.0 GiB']);
  assert.deepEqual([59, 61, 3_700, 200_000].map(duration), ['59 s', '1 min', '1 h 1 min', '2 days']);
  assert.deepEqual([null, 0.25, 3.25, 31.7, 1_500, 20_000].map(millis), ['–', '0.25 ms', '3.3 ms', '32 ms', '1.5 s', '20 s']);
  assert.deepEqual([0.04, 3.14, 1_234.5].map(rate), ['0', '3.1', '1,235']);
  assert.deepEqual(['', 'lobby', 'room:*'].map(pattern), ['*', '*lobby*', 'room:*']);
});
