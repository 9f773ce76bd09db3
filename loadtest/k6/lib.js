// What the scripts share: a client of fanfare.v1.json, the ledger that proves delivery, the roll call that
// starts a run when everyone listens, and a summary that a person can read.
//
// No imports from the network: a load test must run where only the gateway can be reached.

import { WebSocket } from 'k6/experimental/websockets';
import { Counter, Trend } from 'k6/metrics';
import { page } from './report.js';

export const URL = __ENV.URL || 'ws://127.0.0.1:8000/ws';

// What a summary needs of every Trend; k6 leaves out p(99) unless it is asked.
export const STATS = ['avg', 'min', 'med', 'p(90)', 'p(95)', 'p(99)', 'max', 'count'];

// What this run was started with, for the report.
const asked = { URL };

/** A whole number from the environment (`-e NAME=…`), or what it is without. */
export function number(name, otherwise) {
  const value = __ENV[name] === undefined ? otherwise : Number(__ENV[name]);
  asked[name] = value;
  if (!Number.isInteger(value) || value < 0) {
    throw new Error(`${name}=${__ENV[name]} is not a whole number`);
  }
  return value;
}

const connectErrors = new Counter('connect_errors');
const refusals = new Counter('refused_commands');
const unexpectedCloses = new Counter('unexpected_closes');
const opened = new Counter('connections_opened');
const handshake = new Trend('handshake', true);

/** Thresholds that every script has: `connections` sockets come up, and stay up until they are told. */
export function connectionThresholds(connections) {
  return {
    connections_opened: [`count==${connections}`],
    connect_errors: ['count==0'],
    refused_commands: ['count==0'],
    unexpected_closes: ['count==0'],
    handshake: [`p(95)<${number('HANDSHAKE_P95_MS', 2000)}`],
  };
}

/**
 * One connection. `on` holds functions by what they are told of: `open`, or an event's type; `closed` is for those who come
 * back, to whom neither an end nor a failed attempt is an error.
 * Handshake time is from the call to `open`, k6's own queueing included.
 *
 * k6 drops a frame that it reads before it has told of `open`, now and then the `welcome` that a gateway sends
 * with the handshake. So nothing waits for `welcome`, and `node` may stay null.
 */
export class Client {
  constructor(on, url = URL) {
    this.on = on;
    this.node = null;
    this.opened = false;
    this.leaving = false;
    // A counter that nothing was added to would not be in the summary.
    [connectErrors, refusals, unexpectedCloses].forEach((counter) => counter.add(0));
    const start = Date.now();
    this.socket = new WebSocket(url, ['fanfare.v1.json']);
    this.socket.onopen = () => {
      this.opened = true;
      opened.add(1);
      handshake.add(Date.now() - start);
      this.on.open(this);
    };
    this.socket.onmessage = ({ data }) => {
      const events = JSON.parse(data);
      for (const event of Array.isArray(events) ? events : [events]) {
        this.hear(event);
      }
    };
    this.socket.onerror = ({ error }) => {
      if (!this.opened && !this.on.closed) {
        connectErrors.add(1);
        console.error(`cannot connect: ${error}`);
      }
    };
    this.socket.onclose = ({ code }) => {
      const isExpected = this.leaving;
      this.leaving = true;
      if (this.on.closed) {
        this.on.closed(this, { code, isExpected });
      } else if (this.opened && !isExpected) {
        unexpectedCloses.add(1);
        console.error(`closed with ${code}`);
      }
    };
  }

  hear(event) {
    if (event.type === 'welcome') {
      this.node = event.node;
    } else if (event.type === 'error' || event.type === 'unsubscribed') {
      refusals.add(1);
      console.error(`${event.type} ${event.code}: ${event.reason}`);
    }
    const listener = this.on[event.type];
    if (listener) {
      listener(event, this);
    }
  }

  send(command) {
    if (!this.leaving) {
      this.socket.send(JSON.stringify(command));
    }
  }

  /** `more` may hold `since`, `presence`, `id`, … */
  subscribe(channel, more = {}) {
    this.send({ type: 'subscribe', channel, ...more });
  }

  publish(channel, data, more = {}) {
    this.send({ type: 'publish', channel, data, ...more });
  }

  /** Leaves, as intended. */
  close() {
    if (!this.leaving) {
      this.leaving = true;
      this.socket.close();
    }
  }
}

const delivered = new Counter('messages_delivered');
const lost = new Counter('messages_lost');
const doubled = new Counter('messages_doubled');
const reordered = new Counter('messages_reordered');
const latency = new Trend('delivery_latency', true);

/** Thresholds of a run in which `deliveries` messages must be heard, each exactly once and in order. */
export function deliveryThresholds(deliveries, latencyMs = 1000) {
  return {
    messages_delivered: [`count==${deliveries}`],
    messages_lost: ['count==0'],
    messages_doubled: ['count==0'],
    messages_reordered: ['count==0'],
    delivery_latency: [`p(95)<${number('LATENCY_P95_MS', latencyMs)}`],
  };
}

/** What one subscriber hears of one publisher, whose messages are numbered from 1 to `expected`. */
export class Ledger {
  constructor(expected) {
    this.expected = expected;
    this.heard = new Set();
    this.highest = 0;
    [delivered, lost, doubled, reordered].forEach((counter) => counter.add(0));
  }

  /** Enters a message; `sent` is given where it is heard as it comes. True when it was the last one missing. */
  enter({ number: sequence, sent }) {
    if (this.heard.has(sequence)) {
      doubled.add(1);
      return false;
    }
    this.heard.add(sequence);
    delivered.add(1);
    if (sent !== undefined) {
      latency.add(Date.now() - sent);
    }
    if (sequence < this.highest) {
      reordered.add(1);
    }
    this.highest = Math.max(this.highest, sequence);
    return this.heard.size === this.expected;
  }

  /** Nothing more is expected: what is missing is lost. */
  close() {
    lost.add(this.expected - this.heard.size);
  }
}

/** How long a subscriber stays after its last message, in ms: a double comes last. */
export const LINGER_MS = 1000;

/** How often the conductor calls the roll until everyone has answered. */
const CALL_INTERVAL_MS = 1000;

/** Everyone's channels, new for each run: `setup` makes them, k6 hands them to all VUs. */
export function channels() {
  const run = Math.random().toString(36).slice(2, 10);
  const prefix = `${__ENV.PREFIX || 'load:'}${run}`;
  return { roll: `${prefix}:roll`, answers: `${prefix}:answers`, prefix };
}

/**
 * Calls the roll on one channel until `count` different members have answered on another, then calls
 * `ready(client, nodes)` once, with the number of members by node, as far as known. VUs of k6 share nothing, so the system
 * under test is what they meet through. `-e CONDUCTOR_URL=…` is for runs in which nodes are taken away: one that stays.
 */
export function conduct(names, count, ready) {
  const answered = new Set();
  const nodes = {};
  const on = {
    open: (client) => client.subscribe(names.answers),
    subscribed: (_, client) => {
      const calling = setInterval(() => {
        if (client.leaving || answered.size === count) {
          clearInterval(calling);
        } else {
          client.publish(names.roll, { call: true });
        }
      }, CALL_INTERVAL_MS);
    },
    message: ({ data }, client) => {
      if (answered.has(data.member)) {
        return;
      }
      answered.add(data.member);
      if (data.node !== null) {
        nodes[data.node] = (nodes[data.node] || 0) + 1;
      }
      if (answered.size === count) {
        ready(client, nodes);
      }
    },
  };
  return new Client(on, __ENV.CONDUCTOR_URL || URL);
}

/** Answers the first call that a member hears. */
export class Answer {
  constructor(names, member) {
    this.names = names;
    this.member = member;
    this.given = false;
  }

  give(client) {
    if (!this.given) {
      this.given = true;
      client.publish(this.names.answers, { member: this.member, node: client.node });
    }
  }
}

function count(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, ',');
}

/**
 * What `handleSummary` returns: a table of `rows`, each a label, a metric and (for a Trend) the wanted values,
 * then the thresholds with their verdicts; `-e SUMMARY=file` writes all of it as JSON too, `-e REPORT=file.html` as a page.
 */
export function summarise(title, rows, data) {
  const figures = [];
  const distributions = [];
  for (const [label, metric, ...stats] of rows) {
    const values = data.metrics[metric] && data.metrics[metric].values;
    if (!values) {
      figures.push([label, 'none']);
    } else if (stats.length === 0) {
      figures.push([label, count(values.count === undefined ? values.value : values.count)]);
    } else {
      distributions.push([label, stats, values]);
    }
  }
  const verdicts = Object.entries(data.metrics)
    .sort()
    .flatMap(([metric, { thresholds }]) =>
      Object.entries(thresholds || {}).map(([condition, { ok }]) => [metric, condition, ok]),
    );
  const outputs = { stdout: table(title, figures, distributions, verdicts) };
  if (__ENV.SUMMARY) {
    outputs[__ENV.SUMMARY] = JSON.stringify(data, null, 2);
  }
  if (__ENV.REPORT) {
    outputs[__ENV.REPORT] = page({ title, asked: Object.entries(asked), figures, distributions, verdicts });
  }
  return outputs;
}

function table(title, figures, distributions, verdicts) {
  const line = (label, value) => `  ${label.padEnd(36)}${value.padStart(14)}`;
  const missed = verdicts.filter(([, , ok]) => !ok).length;
  return [
    '',
    title,
    ...figures.map(([label, value]) => line(label, value)),
    ...distributions.flatMap(([label, stats, values]) =>
      stats.map((stat) => line(`${label} ${stat}, ms`, values[stat].toFixed(1))),
    ),
    '',
    '  thresholds',
    ...verdicts.map(([metric, condition, ok]) => line(`${ok ? 'ok    ' : 'MISSED'} ${metric}`, ` ${condition}`)),
    '',
    missed ? `FAILED: ${missed} thresholds missed` : 'ok',
    '',
  ].join('\n');
}
