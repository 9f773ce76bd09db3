// Rooms in which everybody speaks: do all hear all, once, and each speaker in order? How long until one is heard, and until
// the gateway has acknowledged?
//
//   loadtest/k6/run chat -e URL=ws://127.0.0.1:8000/ws -e ROOMS=100 -e SIZE=10
//
//   URL, ROOMS (50), SIZE (people in a room, 8), VUS (20), MESSAGES (of each, 5), THINK (ms between two of one person, on
//   average, 2000), RAMP (seconds, 5), LATENCY_P95_MS (1000), PUBLISHED_P95_MS (1000), HANDSHAKE_P95_MS (2000),
//   DEADLINE (seconds for the whole run), PREFIX ("load:"), SUMMARY and REPORT (files)
//
// People come, look who is there, are told who comes (the namespace needs presence), and begin when the conductor has seen all
// of them; they think for a while of their own between two messages.

import exec from 'k6/execution';
import { Counter, Trend } from 'k6/metrics';
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

const ROOMS = number('ROOMS', 50);
const SIZE = number('SIZE', 8);
const PEOPLE = ROOMS * SIZE;
const VUS = Math.min(number('VUS', 20), PEOPLE);
const MESSAGES = number('MESSAGES', 5);
const THINK = number('THINK', 2000);
const RAMP = number('RAMP', 5);
const PUBLISHED_P95_MS = number('PUBLISHED_P95_MS', 1000);
const DEADLINE = number('DEADLINE', RAMP + Math.ceil((MESSAGES * THINK * 2) / 1000) + 60);

const acknowledged = new Counter('acknowledged');
const acknowledging = new Trend('time_to_acknowledge', true);
const joins = new Counter('joins_heard');
const crowded = new Counter('rooms_seen_full');

const scenario = { executor: 'per-vu-iterations', iterations: 1, maxDuration: `${DEADLINE + 30}s` };

export const options = {
  scenarios: {
    people: { ...scenario, exec: 'people', vus: VUS },
    conductor: { ...scenario, exec: 'conductor', vus: 1 },
  },
  thresholds: {
    ...connectionThresholds(PEOPLE + 1),
    ...deliveryThresholds(PEOPLE * SIZE * MESSAGES),
    acknowledged: [`count==${PEOPLE * MESSAGES}`],
    time_to_acknowledge: [`p(95)<${PUBLISHED_P95_MS}`],
    rooms_seen_full: [`count==${PEOPLE}`],
  },
  summaryTrendStats: STATS,
};

export const setup = channels;

export function people(names) {
  for (let index = exec.scenario.iterationInTest; index < PEOPLE; index += VUS) {
    setTimeout(() => person(names, index), ((RAMP * 1000) / PEOPLE) * index);
  }
}

function person(names, index) {
  const room = `${names.prefix}:${index % ROOMS}`;
  // By who speaks: each is heard in order, and they are heard in whichever order they spoke.
  const ledgers = new Map();
  const answer = new Answer(names, index);
  const asked = new Map();
  let complete = 0;
  let started = false;
  joins.add(0);
  crowded.add(0);
  for (let speaker = index % ROOMS; speaker < PEOPLE; speaker += ROOMS) {
    ledgers.set(speaker, new Ledger(MESSAGES));
  }
  const client = new Client({
    open: (it) => {
      it.subscribe(room, { presence: true });
      it.subscribe(names.roll);
    },
    joined: () => joins.add(1),
    presence: ({ connections }) => crowded.add(connections === SIZE ? 1 : 0),
    published: ({ id }) => {
      acknowledged.add(1);
      acknowledging.add(Date.now() - asked.get(id));
    },
    message: ({ data }) => {
      if (data.call) {
        answer.give(client);
      } else if (data.go) {
        if (!started) {
          started = true;
          client.send({ type: 'presence', channel: room, members: false });
          speak();
        }
      } else if (ledgers.get(data.speaker).enter(data)) {
        complete += 1;
        if (complete === SIZE) {
          clearTimeout(deadline);
          setTimeout(leave, LINGER_MS);
        }
      }
    },
  });
  let said = 0;
  const speak = () => {
    setTimeout(() => {
      said += 1;
      asked.set(said, Date.now());
      client.publish(room, { speaker: index, number: said, sent: Date.now(), text: 'so it goes' }, { id: said });
      if (said < MESSAGES && !client.leaving) {
        speak();
      }
    }, THINK * (0.5 + Math.random()));
  };
  const leave = () => {
    ledgers.forEach((ledger) => ledger.close());
    client.close();
  };
  const deadline = setTimeout(leave, DEADLINE * 1000);
}

export function conductor(names) {
  const client = conduct(names, PEOPLE, () => {
    clearTimeout(deadline);
    client.publish(names.roll, { go: true });
    setTimeout(() => client.close(), LINGER_MS);
  });
  const deadline = setTimeout(() => client.close(), DEADLINE * 1000);
}

export function handleSummary(data) {
  return summarise(
    `${ROOMS} rooms of ${SIZE} people, each of whom says ${MESSAGES} things`,
    [
      ['people', 'connections_opened'],
      ['saw their room full', 'rooms_seen_full'],
      ['told of others who came', 'joins_heard'],
      ['acknowledged', 'acknowledged'],
      ['delivered', 'messages_delivered'],
      ['lost', 'messages_lost'],
      ['doubled', 'messages_doubled'],
      ['out of order', 'messages_reordered'],
      ['latency', 'delivery_latency', 'med', 'p(90)', 'p(95)', 'p(99)', 'max'],
      ['time to acknowledge', 'time_to_acknowledge', 'med', 'p(90)', 'p(95)', 'p(99)', 'max'],
      ['handshake', 'handshake', 'med', 'p(95)', 'max'],
    ],
    data,
  );
}
