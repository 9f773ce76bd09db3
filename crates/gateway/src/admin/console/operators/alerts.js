/**
 * What an operator should know now, out of what the nodes say. Pure: the same facts, the same alerts. Those of a Prometheus beside
 * the cluster (deploy/prometheus) look further back; these need nothing but the nodes.
 */

import { bytes, count, duration, millis, plural } from './words.js';

/** Of the connections that a node takes: from here on it is told, and from there on it is urgent. */
const NEARLY_FULL = 0.8;
const FULL = 0.95;
const QUEUED_BYTES = 64 * 1_024 * 1_024;

const CHECKS = {
  broker: () => ['critical', 'has no link to the broker: nothing comes from other nodes', 'broker-away'],
  lag: ({ lag_ms: lag }) => ['critical', `hears its own publications ${millis(lag)} late`, 'broker-lag'],
  positions: () => ['warning', 'cannot check where its streams stand', 'broker-calls-fail'],
  stall: () => ['warning', 'stood still: the machine has too little time for it', 'delivery-slow'],
};

/** `[{ key, level, node, text, runbook }]`, the worst first. `level` is `critical`, `warning` or `notice`. */
export function alerts({ nodes, gone = new Map(), trouble, now = Date.now() }) {
  const found = [];
  const add = (level, node, text, runbook) => found.push({ key: `${node}/${runbook ?? text}`, level, node, text, runbook });
  if (trouble) add('critical', '', `No news of the cluster: ${trouble.message}.`, 'node-down');
  for (const node of nodes) ofNode(node, (level, text, runbook) => add(level, node.node, text, runbook));
  for (const [name, at] of gone) add('critical', name, `was there until ${duration((now - at) / 1_000)} ago, and is not heard any more`, 'node-down');
  const versions = [...new Set(nodes.map((it) => it.version))].sort();
  if (versions.length > 1) add('notice', '', `Nodes run ${plural(versions.length, 'version')}: ${versions.join(', ')}.`, 'versions-mixed');
  const order = ['critical', 'warning', 'notice'];
  return found.sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level));
}

function ofNode(node, add) {
  const { failing = [], draining, ready, connections, connections_max: most, queued_bytes: queued } = node;
  if (draining) add('notice', 'is draining: its clients go to other nodes', undefined);
  for (const check of failing) {
    if (check === 'draining') continue;
    add(...(CHECKS[check]?.(node) ?? ['warning', `is not ready: ${check}`, undefined]));
  }
  if (!ready && !draining && failing.length === 0) add('warning', 'is not ready', undefined);
  if (most > 0 && connections >= most * NEARLY_FULL) {
    const share = Math.floor((connections / most) * 100);
    add(connections >= most * FULL ? 'critical' : 'warning', `has ${count(connections)} of ${plural(most, 'connection')}, ${share} %`, 'connections-near-limit');
  }
  if (queued >= QUEUED_BYTES) add('warning', `holds ${bytes(queued)} that clients have not read`, 'slow-consumers');
}
