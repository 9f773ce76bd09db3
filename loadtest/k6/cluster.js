// Through the proxy of a cluster: do the nodes share the connections, and does every message of a channel
// reach each of its members, wherever they are, exactly once and in order?
//
//   loadtest/k6/run cluster -e URL=ws://127.0.0.1:8080/ws -e CONNECTIONS=5000 -e NODES=3
//
//   URL, CONNECTIONS (5000), NODES (at least so many must serve, 3), VUS (25), SIZE (members of a channel, 10),
//   MESSAGES (of each channel, 10), INTERVAL (ms between two of a channel, 1000), RAMP (seconds, 10),
//   LATENCY_P95_MS (1000), DEADLINE (seconds for the whole run), HANDSHAKE_P95_MS (2000), PREFIX ("load:"),
//   SUMMARY and REPORT (files)
//
// The order of events: members connect, each to its channel and to the roll; the conductor calls the roll
// until all have answered, then calls "go"; the first member of each channel publishes; a member leaves when
// it has heard all, or at the deadline, when what is missing is lost.

import exec from 'k6/execution';
import { Gauge } from 'k6/metrics';
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

const CONNECTIONS = number('CONNECTIONS', 5000);
const NODES = number('NODES', 3);
const VUS = Math.min(number('VUS', 25), CONNECTIONS);
const SIZE = number('SIZE', 10);
const MESSAGES = number('MESSAGES', 10);
const INTERVAL = number('INTERVAL', 1000);
const RAMP = number('RAMP', 10);
const DEADLINE = number('DEADLINE', RAMP + Math.ceil((MESSAGES * INTERVAL) / 1000) + 60);
const CHANNELS = CONNECTIONS / SIZE;

if (!Number.isInteger(CHANNELS)) {
  throw new Error('CONNECTIONS must be a multiple of SIZE');
}

const nodesServing = new Gauge('nodes_serving');
const leastOnANode = new Gauge('connections_on_least_node');

const scenario = { executor: 'per-vu-iterations', iterations: 1, maxDuration: `${DEADLINE + 30}s` };

export const options = {
  scenarios: {
    members: { ...scenario, exec: 'members', vus: VUS },
    conductor: { ...scenario, exec: 'conductor', vus: 1 },
  },
  thresholds: {
    ...connectionThresholds(CONNECTIONS + 1),
    ...deliveryThresholds(MESSAGES * CONNECTIONS),
    nodes_serving: [`value>=${NODES}`],
  },
  summaryTrendStats: STATS,
};

export const setup = channels;

export function members(names) {
  for (let index = exec.scenario.iterationInTest; index < CONNECTIONS; index += VUS) {
    setTimeout(() => member(names, index), ((RAMP * 1000) / CONNECTIONS) * index);
  }
}

function member(names, index) {
  const channel = `${names.prefix}:${index % CHANNELS}`;
  const ledger = new Ledger(MESSAGES);
  const answer = new Answer(names, index);
  let started = false;
  const client = new Client({
    // Its own channel first: who hears the roll hears everything.
    open: (it) => {
      it.subscribe(channel);
      it.subscribe(names.roll);
    },
    message: ({ data }) => {
      if (data.call) {
        answer.give(client);
      } else if (data.go) {
        if (index < CHANNELS && !started) {
          started = true;
          publish(client, channel);
        }
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

function publish(client, channel) {
  let published = 0;
  const next = () => {
    published += 1;
    client.publish(channel, { number: published, sent: Date.now() });
    if (published < MESSAGES && !client.leaving) {
      setTimeout(next, INTERVAL);
    }
  };
  // Not all channels in the same millisecond.
  setTimeout(next, Math.random() * INTERVAL);
}

export function conductor(names) {
  const client = conduct(names, CONNECTIONS, (_, nodes) => {
    clearTimeout(deadline);
    nodesServing.add(Object.keys(nodes).length);
    leastOnANode.add(Math.min(...Object.values(nodes)));
    client.publish(names.roll, { go: true });
    setTimeout(() => client.close(), LINGER_MS);
  });
  const deadline = setTimeout(() => client.close(), DEADLINE * 1000);
}

export function handleSummary(data) {
  return summarise(
    `${CONNECTIONS} members of ${CHANNELS} channels, ${MESSAGES} messages to each channel`,
    [
      ['connections', 'connections_opened'],
      ['nodes that serve them', 'nodes_serving'],
      ['members seen on the least of these', 'connections_on_least_node'],
      ['delivered', 'messages_delivered'],
      ['lost', 'messages_lost'],
      ['doubled', 'messages_doubled'],
      ['out of order', 'messages_reordered'],
      ['handshake', 'handshake', 'med', 'p(95)', 'max'],
      ['latency', 'delivery_latency', 'med', 'p(90)', 'p(95)', 'p(99)', 'max'],
    ],
    data,
  );
}
