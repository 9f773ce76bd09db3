/** A market: a client whose token lets it publish quotes, in MessagePack. */

import * as codec from '@msgpack/msgpack';
import { Packed } from './packed.mjs';

const OPENING = { ACME: 101.5, BOLT: 48.2, CORE: 312, DUNE: 7.35, EAST: 88.8, FLUX: 1_204 };
const EVERY_MS = 60;

export async function feed({ public: url }, { token }) {
  const market = new Packed(url, { codec, token: token('market', { allow: [{ channels: ['market:*'], can: ['publish'] }] }) });
  const prices = new Map(Object.entries(OPENING));
  const timer = setInterval(() => {
    const symbols = [...prices.keys()];
    const symbol = symbols[Math.floor(Math.random() * symbols.length)];
    const price = Math.max(0.5, prices.get(symbol) * (1 + (Math.random() - 0.5) / 200));
    prices.set(symbol, price);
    market.publish(`market:${symbol}`, { bid: price * 0.9995, ask: price * 1.0005, size: new Uint16Array([1 + Math.random() * 900])[0], at: Date.now() });
  }, EVERY_MS);
  return async () => {
    clearInterval(timer);
    market.close();
  };
}
