// Everybody is cut off at once and comes back: how long until all are there again, and does anybody miss anything?
//
//   loadtest/k6/run storm -e URL=ws://127.0.0.1:8000/ws -e CLIENTS=5000
//
//   URL, CLIENTS (1000), VUS (20), MESSAGES (60), RATE (per second, 5), STORM (seconds of publishing before it, 4; 0: no
//   client goes by itself, you take nodes away, and CONDUCTOR_URL is of one that stays), RAMP (seconds to open them, 5),
//   BACKOFF_MS (at most, before the first attempt; doubled with each that fails, 1000), BACK_P95_MS (5000), LATENCY_P95_MS
//   (10000), HANDSHAKE_P95_MS (5000), DEADLINE (seconds for the whole run), PREFIX ("load:"), SUMMARY and REPORT (files)
//
// A publisher goes on all the while on a channel with history, of at least MESSAGES. Who was away asks for what came since:
// the ledger shows whether that was all, and once.

import exec from 'k6/execution';
import { Counter, Trend } from 'k6/metrics';
import { Answer, Client, LINGER_MS, Ledger, STATS, channels, conduct, deliveryThresholds, number, summarise } from './lib.js';

const CLIENTS = number('CLIENTS', 1000);
const VUS = Math.min(number('VUS', 20), CLIENTS);
const MESSAGES = number('MESSAGES', 60);
const RATE = number('RATE', 5);
const STORM = number('STORM', 4);
const RAMP = number('RAMP', 5);
const BACKOFF_MS = number('BACKOFF_MS', 1000);
const BACK_P95_MS = number('BACK_P95_MS', 5000);
const HANDSHAKE_P95_MS = number('HANDSHAKE_P95_MS', 5000);
const DEADLINE = number('DEADLINE', RAMP + Math.ceil(MESSAGES / RATE) + 60);
const BACKOFF_MS_MAX = 20000;

const returns = new Counter('clients_back');
const unrecovered = new Counter('clients_not_recovered');
const failures = new Counter('attempts_failed');
const refused = new Counter('refused_commands');
const back = new Trend('time_to_be_back', true);

const scenario = { executor: 'per-vu-iterations', iterations: 1, maxDuration: `${DEADLINE + 30}s` };

export const options = {
  scenarios: {
    clients: { ...scenario, exec: 'clients', vus: VUS },
    publisher: { ...scenario, exec: 'publisher', vus: 1 },
  },
  thresholds: {
    // What was missed is as old as the absence was long.
    ...deliveryThresholds(MESSAGES * CLIENTS, 10000),
    clients_back: [STORM ? `count==${CLIENTS}` : 'count>0'],
    clients_not_recovered: ['count==0'],
    refused_commands: ['count==0'],
    time_to_be_back: [`p(95)<${BACK_P95_MS}`],
    handshake: [`p(95)<${HANDSHAKE_P95_MS}`],
  },
  summaryTrendStats: STATS,
};

export const setup = channels;

/** One client through all its connections. */
class Survivor {
  constructor(names, index) {
    this.names = names;
    this.ledger = new Ledger(MESSAGES);
    this.answer = new Answer(names, index);
    this.since = null;
    this.lostAt = null;
    this.failed = 0;
    this.stormed = STORM === 0;
    this.done = false;
    [returns, unrecovered, failures].forEach((counter) => counter.add(0));
    this.connect();
    this.deadline = setTimeout(() => this.leave(), DEADLINE * 1000);
  }

  connect() {
    this.client = new Client({
      open: (client) => client.subscribe(this.names.roll, this.since ? { since: this.since } : {}),
      subscribed: (event) => this.subscribed(event),
      message: (event) => this.hear(event),
      unsubscribed: (_, client) => client.close(),
      closed: (client) => this.lost(client),
    });
  }

  subscribed({ epoch, offset, recovered }) {
    if (this.lostAt !== null) {
      returns.add(1);
      unrecovered.add(recovered ? 0 : 1);
      back.add(Date.now() - this.lostAt);
      this.lostAt = null;
    }
    this.failed = 0;
    this.epoch = epoch;
    // With a place of its own the missed messages follow, and each brings its offset.
    this.since = this.since && recovered ? { ...this.since, epoch } : { epoch, offset };
  }

  hear({ data, offset }) {
    this.since = { epoch: this.epoch, offset };
    if (data.call) {
      this.answer.give(this.client);
    } else if (data.go) {
      this.storm();
    } else if (this.ledger.enter(data)) {
      clearTimeout(this.deadline);
      setTimeout(() => this.leave(), LINGER_MS);
    }
  }

  storm() {
    if (!this.stormed) {
      this.stormed = true;
      setTimeout(() => this.client.close(), STORM * 1000);
    }
  }

  lost(client) {
    if (this.done || client !== this.client) {
      return;
    }
    this.lostAt = this.lostAt || Date.now();
    failures.add(client.opened ? 0 : 1);
    const wait = Math.random() * Math.min(BACKOFF_MS * 2 ** this.failed, BACKOFF_MS_MAX);
    this.failed += 1;
    setTimeout(() => this.done || this.connect(), wait);
  }

  leave() {
    if (!this.done) {
      this.done = true;
      this.ledger.close();
      this.client.close();
    }
  }
}

export function clients(names) {
  for (let index = exec.scenario.iterationInTest; index < CLIENTS; index += VUS) {
    setTimeout(() => new Survivor(names, index), ((RAMP * 1000) / CLIENTS) * index);
  }
}

export function publisher(names) {
  const conductor = conduct(names, CLIENTS, (client) => {
    clearTimeout(deadline);
    client.publish(names.roll, { go: true });
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
    `${CLIENTS} clients, ${STORM ? `cut off after ${STORM} s` : 'whose nodes are taken away'}, while ${RATE} messages a second are published`,
    [
      ['came back', 'clients_back'],
      ['attempts that failed', 'attempts_failed'],
      ['came back and were not recovered', 'clients_not_recovered'],
      ['delivered', 'messages_delivered'],
      ['lost', 'messages_lost'],
      ['doubled', 'messages_doubled'],
      ['out of order', 'messages_reordered'],
      ['time to be back', 'time_to_be_back', 'med', 'p(90)', 'p(95)', 'p(99)', 'max'],
      ['handshake', 'handshake', 'med', 'p(95)', 'p(99)', 'max'],
      ['latency, the replayed among them', 'delivery_latency', 'med', 'p(90)', 'p(95)', 'max'],
    ],
    data,
  );
}
