/**
 * Publishes one message by the server API, with what Node.js has.
 *
 *     FANFARE_API=http://127.0.0.1:8001 FANFARE_KEY=… node publish.mjs orders:1 '{"state":"shipped"}'
 */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

const { FANFARE_API, FANFARE_KEY } = process.env;

async function publish(channel, data, tries = 5) {
  // The key makes it the same publication, however often it is sent.
  const body = JSON.stringify({ channel, data, key: randomUUID() });
  const headers = { authorization: `Bearer ${FANFARE_KEY}`, 'content-type': 'application/json' };
  for (let left = tries - 1; ; left -= 1) {
    const answer = await fetch(`${FANFARE_API}/api/publish`, { method: 'POST', headers, body, signal: AbortSignal.timeout(5_000) }).catch((error) => {
      if (left === 0) throw error;
    });
    if (answer?.ok) return answer.json();
    // 503: the broker is away for a moment. Everything else would fail again.
    if (answer && (answer.status !== 503 || left === 0)) throw new Error(`not published: ${await answer.text()}`);
    await sleep(1_000 * Number(answer?.headers.get('retry-after') ?? 1));
  }
}

const [channel, data] = process.argv.slice(2);
console.log(JSON.stringify(await publish(channel, JSON.parse(data))));
