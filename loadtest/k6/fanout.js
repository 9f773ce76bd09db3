// How long does a message take from one publisher to all subscribers of a channel, and is any lost?
//
//   loadtest/k6/run fanout -e URL=ws://127.0.0.1:8000/ws -e SUBSCRIBERS=1000 -e RATE=20
//
//   URL, SUBSCRIBERS (500), VUS (20), MESSAGES (100), RATE (per second, 10), LATENCY_P95_MS (1000),
//   DEADLINE (seconds for the whole run), HANDSHAKE_P95_MS (2000), PREFIX ("load:"), SUMMARY and REPORT (files)
//
// Latency has k6's grain of 1 ms and its own queueing in it: below 10 ms, ask `fanfare-loadtest fanout`.

import exec from 'k6/execution';
import {
  Answer,
  Client,
  LINGER_MS,
  Ledger,
  STATS,
  channels,
  conduct,
  connectionThresholds,
  deliveryThresholds,
  number,
  summarise,
} from './lib.js';

const SUBSCRIBERS = number('SUBSCRIBERS', 500);
const VUS = Math.min(number('VUS', 20), SUBSCRIBERS);
const MESSAGES = number('MESSAGES', 100);
const RATE = number('RATE', 10);
const DEADLINE = number('DEADLINE', Math.ceil(MESSAGES / RATE) + 60);

const scenario = { executor: 'per-vu-iterations', iterations: 1, maxDuration: `${DEADLINE + 30}s` };

export const options = {
  scenarios: {
    subscribers: { ...scenario, exec: 'subscribers', vus: VUS },
    publisher: { ...scenario, exec: 'publisher', vus: 1 },
  },
  thresholds: { ...connectionThresholds(SUBSCRIBERS + 1), ...deliveryThresholds(MESSAGES * SUBSCRIBERS) },
  summaryTrendStats: STATS,
};

export const setup = channels;

export function subscribers(names) {
  for (let index = exec.scenario.iterationInTest; index < SUBSCRIBERS; index += VUS) {
    subscriber(names, index);
  }
}

function subscriber(names, index) {
  const ledger = new Ledger(MESSAGES);
  const answer = new Answer(names, index);
  // The roll is called on the very channel that is measured: who answers is subscribed to it.
  const client = new Client({
    open: (it) => it.subscribe(names.roll),
    message: ({ data }) => {
      if (data.call) {
        answer.give(client);
      } else if (ledger.enter(data)) {
        clearTimeout(deadline);
        setTimeout(leave, LINGER_MS);
      }
    },
  });
  const leave = () => {
    ledger.close();
    client.close();
  };
  const deadline = setTimeout(leave, DEADLINE * 1000);
}

export function publisher(names) {
  const conductor = conduct(names, SUBSCRIBERS, (client) => {
    clearTimeout(deadline);
    let published = 0;
    const publishing = setInterval(() => {
      published += 1;
      client.publish(names.roll, { number: published, sent: Date.now() });
      if (published === MESSAGES || client.leaving) {
        clearInterval(publishing);
        setTimeout(() => client.close(), LINGER_MS);
      }
    }, 1000 / RATE);
  });
  const deadline = setTimeout(() => conductor.close(), DEADLINE * 1000);
}

export function handleSummary(data) {
  return summarise(
    `${MESSAGES} messages, ${RATE} a second, to ${SUBSCRIBERS} subscribers of one channel`,
    [
      ['connections', 'connections_opened'],
      ['delivered', 'messages_delivered'],
      ['lost', 'messages_lost'],
      ['doubled', 'messages_doubled'],
      ['out of order', 'messages_reordered'],
      ['latency', 'delivery_latency', 'med', 'p(90)', 'p(95)', 'p(99)', 'max'],
    ],
    data,
  );
}
