// Subscribers by Server-Sent Events, whose responses end now and then, as they do behind proxies: do they come back as an
// EventSource does, and hear everything once?
//
//   loadtest/k6/run sse -e URL=ws://127.0.0.1:8000/ws -e SECRET=… -e SUBSCRIBERS=500
//
//   URL, SECRET (auth.jwt.hmac_secret of the nodes), SUBSCRIBERS (200), VUS (10), MESSAGES (50), RATE (per second, 5), LIFE (seconds
//   that a response lasts, 5), LEEWAY (auth.jwt.leeway_seconds of the nodes, 30), RAMP (seconds, 3), FIRST_BYTE_P95_MS (2000),
//   LATENCY_P95_MS (1000, of a WebSocket that hears the same), DEADLINE (seconds for the whole run), PREFIX ("load:"), SUMMARY and
//   REPORT (files)
//
// k6 has a response only when it has ended. So each is asked for with a token of LIFE seconds, at whose expiry the node ends
// it, and the next one with another, and with the last event's id as Last-Event-ID: an EventSource in slow motion. What it
// cannot see is when an event came; a WebSocket subscriber of the same channel measures that beside them. The nodes take
// clients without a token too (auth.anonymous), the publisher for one.

import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';
import { Client, LINGER_MS, Ledger, STATS, URL, channels, deliveryThresholds, number, summarise } from './lib.js';

const SUBSCRIBERS = number('SUBSCRIBERS', 200);
const VUS = Math.min(number('VUS', 10), SUBSCRIBERS);
const MESSAGES = number('MESSAGES', 50);
const RATE = number('RATE', 5);
const LIFE = number('LIFE', 5);
const LEEWAY = number('LEEWAY', 30);
const RAMP = number('RAMP', 3);
const FIRST_BYTE_P95_MS = number('FIRST_BYTE_P95_MS', 2000);
const DEADLINE = number('DEADLINE', RAMP + Math.ceil(MESSAGES / RATE) + 4 * LIFE + 30);
const ORIGIN = URL.replace(/^ws/, 'http').replace(/\/ws$/, '');
const SECRET = __ENV.SECRET;

if (!SECRET) {
  throw new Error('SECRET is needed: the auth.jwt.hmac_secret of the nodes');
}

const responses = new Counter('sse_responses');
const failed = new Counter('sse_failed');
const unrecovered = new Counter('sse_not_recovered');
const firstByte = new Trend('time_to_first_byte', true);

const scenario = { executor: 'per-vu-iterations', iterations: 1, maxDuration: `${DEADLINE + 30}s` };

export const options = {
  scenarios: {
    subscribers: { ...scenario, exec: 'subscribers', vus: VUS },
    publisher: { ...scenario, exec: 'publisher', vus: 1 },
  },
  thresholds: {
    // The subscribers, and the WebSocket beside them.
    ...deliveryThresholds(MESSAGES * (SUBSCRIBERS + 1)),
    sse_failed: ['count==0'],
    sse_not_recovered: ['count==0'],
    sse_responses: [`count>=${SUBSCRIBERS}`],
    time_to_first_byte: [`p(95)<${FIRST_BYTE_P95_MS}`],
  },
  batch: 1,
  summaryTrendStats: STATS,
};

/** Where everybody begins: the place of the channel before anything was published. */
export function setup() {
  const names = channels();
  const answer = http.get(`${ORIGIN}/poll?channel=${names.roll}`);
  if (answer.status !== 200) {
    throw new Error(`/poll is answered with ${answer.status}: ${answer.body}`);
  }
  return { ...names, since: answer.json('since') };
}

function token(subscriber) {
  const part = (it) => encoding.b64encode(JSON.stringify(it), 'rawurl');
  const claims = { sub: `k6-${subscriber}`, exp: Math.floor(Date.now() / 1000) + LIFE - LEEWAY };
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${crypto.hmac('sha256', SECRET, signed, 'base64rawurl')}`;
}

/** `{id, data}` of each event of a response, as an EventSource would tell them. */
function* events(body) {
  let id = null;
  for (const block of body.split('\n\n')) {
    let data = '';
    for (const line of block.split('\n')) {
      const [, field, value] = /^([a-z]*): ?(.*)$/.exec(line) || [];
      if (field === 'id') {
        id = value;
      } else if (field === 'data') {
        data += value;
      }
    }
    if (data) {
      yield { id, data: JSON.parse(data) };
    }
  }
}

async function subscriber(names, index) {
  const ledger = new Ledger(MESSAGES);
  const end = Date.now() + DEADLINE * 1000;
  let place = names.since;
  let isComplete = false;
  [failed, unrecovered].forEach((counter) => counter.add(0));
  while (!isComplete && Date.now() < end) {
    const answer = await http.asyncRequest('GET', `${ORIGIN}/sse?channel=${names.roll}`, null, {
      headers: { Authorization: `Bearer ${token(index)}`, 'Last-Event-ID': place, Accept: 'text/event-stream' },
      timeout: `${LIFE + 30}s`,
    });
    if (answer.status !== 200) {
      failed.add(1);
      console.error(`/sse is answered with ${answer.status} ${answer.error}`);
      break;
    }
    responses.add(1);
    firstByte.add(answer.timings.waiting);
    for (const { id, data } of events(answer.body)) {
      place = id || place;
      if (data.type === 'subscribed') {
        unrecovered.add(data.recovered ? 0 : 1);
      } else if (data.type === 'message') {
        isComplete = ledger.enter({ number: data.data.number }) || isComplete;
      }
    }
  }
  ledger.close();
}

export function subscribers(names) {
  for (let index = exec.scenario.iterationInTest; index < SUBSCRIBERS; index += VUS) {
    setTimeout(() => subscriber(names, index), ((RAMP * 1000) / SUBSCRIBERS) * index);
  }
}

export function publisher(names) {
  const ledger = new Ledger(MESSAGES);
  const leave = () => {
    ledger.close();
    client.close();
  };
  const client = new Client({
    open: (it) => it.subscribe(names.roll),
    // Most are there by then. Who comes later has a place to begin at.
    subscribed: () => setTimeout(publish, RAMP * 1000),
    message: ({ data }) => {
      if (ledger.enter(data)) {
        clearTimeout(deadline);
        setTimeout(leave, LINGER_MS);
      }
    },
  });
  const publish = () => {
    let published = 0;
    const publishing = setInterval(() => {
      published += 1;
      client.publish(names.roll, { number: published, sent: Date.now() });
      if (published === MESSAGES || client.leaving) {
        clearInterval(publishing);
      }
    }, 1000 / RATE);
  };
  const deadline = setTimeout(leave, DEADLINE * 1000);
}

export function handleSummary(data) {
  return summarise(
    `${SUBSCRIBERS} subscribers by Server-Sent Events, in responses of ${LIFE} s, and ${MESSAGES} messages`,
    [
      ['responses', 'sse_responses'],
      ['failed', 'sse_failed'],
      ['came back and were not recovered', 'sse_not_recovered'],
      ['delivered', 'messages_delivered'],
      ['lost', 'messages_lost'],
      ['doubled', 'messages_doubled'],
      ['out of order', 'messages_reordered'],
      ['time to the first byte', 'time_to_first_byte', 'med', 'p(90)', 'p(95)', 'max'],
      ['latency of the WebSocket beside', 'delivery_latency', 'med', 'p(90)', 'p(95)', 'max'],
    ],
    data,
  );
}
