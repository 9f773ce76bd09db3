// Do so many connections come up through one URL, and stay up?
//
//   loadtest/k6/run connections -e URL=ws://127.0.0.1:8080/ws -e CONNECTIONS=5000
//
//   URL, CONNECTIONS (5000), VUS (25), RAMP (seconds to open them, 10), HOLD (seconds to keep them, 10),
//   HANDSHAKE_P95_MS (2000), PREFIX (of channel names, "load:"), SUMMARY and REPORT (files)

import exec from 'k6/execution';
import { Counter } from 'k6/metrics';
import { Client, STATS, channels, connectionThresholds, number, summarise } from './lib.js';

const CONNECTIONS = number('CONNECTIONS', 5000);
const VUS = Math.min(number('VUS', 25), CONNECTIONS);
const RAMP = number('RAMP', 10);
const HOLD = number('HOLD', 10);

const subscriptions = new Counter('subscriptions');

export const options = {
  scenarios: {
    connections: {
      executor: 'per-vu-iterations',
      vus: VUS,
      iterations: 1,
      maxDuration: `${RAMP + HOLD + 60}s`,
    },
  },
  thresholds: { ...connectionThresholds(CONNECTIONS), subscriptions: [`count==${CONNECTIONS}`] },
  summaryTrendStats: STATS,
};

export const setup = channels;

export default function connections(names) {
  const vu = exec.scenario.iterationInTest;
  const clients = [];
  for (let index = vu; index < CONNECTIONS; index += VUS) {
    setTimeout(() => {
      const client = new Client({
        open: (it) => it.subscribe(`${names.prefix}:${index}`),
        subscribed: () => subscriptions.add(1),
      });
      clients.push(client);
    }, ((RAMP * 1000) / CONNECTIONS) * index);
  }
  setTimeout(() => clients.forEach((client) => client.close()), (RAMP + HOLD) * 1000);
}

export function handleSummary(data) {
  return summarise(
    `${CONNECTIONS} connections in ${RAMP} s, kept for ${HOLD} s`,
    [
      ['opened', 'connections_opened'],
      ['subscribed', 'subscriptions'],
      ['could not connect', 'connect_errors'],
      ['closed unexpectedly', 'unexpected_closes'],
      ['handshake', 'handshake', 'med', 'p(95)', 'p(99)', 'max'],
    ],
    data,
  );
}
