/**
 * Every backend publishes, and a client hears them all. Those whose language is not on this machine are named and left out.
 *
 *     node demo.mjs
 */

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Fanfare } from '../../clients/js/index.js';
import { gateway } from '../support/start.mjs';

const run = promisify(execFile);

export const BACKENDS = { python: ['python3', 'publish.py'], node: ['node', 'publish.mjs'], php: ['php', 'publish.php'], go: ['go', 'run', 'publish.go'] };

/** What `name` publishes; resolves to what the gateway answered. */
export async function publish(name, internal, channel, data, key = 'a-key-that-everybody-knows') {
  const [program, ...rest] = BACKENDS[name];
  const env = { ...process.env, FANFARE_API: internal, FANFARE_KEY: key };
  const { stdout } = await run(program, [...rest, channel, JSON.stringify(data)], { cwd: import.meta.dirname, env });
  return JSON.parse(stdout);
}

if (process.argv[1] === import.meta.filename) {
  const serving = await gateway('backends');
  const fanfare = new Fanfare(serving.public);
  const orders = fanfare.subscribe('orders:1');
  orders.on('message', ({ offset, data }) => console.log(`heard #${offset}: ${JSON.stringify(data)}`));
  await orders.once('subscribed');
  for (const name of Object.keys(BACKENDS)) {
    await publish(name, serving.internal, 'orders:1', { state: 'shipped', by: name }).catch((error) => {
      if (error.code !== 'ENOENT') throw error;
      console.log(`${name} is not on this machine`);
    });
  }
  fanfare.close();
  await serving.stop();
}
