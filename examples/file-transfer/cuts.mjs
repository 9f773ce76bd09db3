/** A TCP proxy in front of the gateway that can cut all connections through it without a word, and let none through. */

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export async function cuttable(target) {
  const pairs = new Set();
  let isSevered = false;
  const server = createServer((near) => {
    if (isSevered) return near.destroy();
    const far = connect(target.port, target.hostname);
    const pair = [near, far];
    pairs.add(pair);
    for (const [one, other] of [pair, [far, near]]) {
      one.pipe(other);
      one.on('error', () => {});
      one.on('close', () => {
        other.destroy();
        pairs.delete(pair);
      });
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => pairs.forEach((pair) => pair.forEach((socket) => socket.resetAndDestroy()));
  return {
    url: `ws://127.0.0.1:${server.address().port}/ws`,
    cut,
    sever: () => {
      isSevered = true;
      cut();
    },
    mend: () => (isSevered = false),
    close: () => server.close(),
  };
}
