/** Quotes as they come, in MessagePack: numbers stay numbers of eight bytes, and nothing is parsed from text. */

import * as msgpack from '/packages/@msgpack/msgpack/dist.esm/index.mjs';
import { Packed } from '/packed.mjs';

const SYMBOLS = ['ACME', 'BOLT', 'CORE', 'DUNE', 'EAST', 'FLUX'];
const $ = (id) => document.getElementById(id);
const rows = new Map(SYMBOLS.map((symbol) => {
  const row = $('quotes').insertRow();
  const name = document.createElement('th');
  name.scope = 'row';
  name.textContent = symbol;
  row.append(name);
  const cells = ['bid', 'ask', 'size'].map(() => row.insertCell());
  return [`market:${symbol}`, { row, cells, bid: 0 }];
}));

const count = { heard: 0, bytes: 0 };
const decode = (bytes) => {
  count.bytes += bytes.length;
  return msgpack.decode(bytes);
};
const { gateway } = await (await fetch('/start')).json();
const market = new Packed(gateway, {
  codec: { encode: msgpack.encode, decode },
  onstate: (state) => {
    $('state').textContent = state;
    $('state').dataset.state = state;
  },
  onmessage: ({ channel, data: { bid, ask, size } }) => {
    const quote = rows.get(channel);
    if (!quote) return;
    [bid.toFixed(2), ask.toFixed(2), size].forEach((text, at) => { quote.cells[at].textContent = text; });
    quote.row.className = '';
    void quote.row.offsetWidth; // Begins the animation anew.
    quote.row.className = bid >= quote.bid ? 'up' : 'down';
    quote.bid = bid;
    count.heard += 1;
    $('heard').textContent = count.heard;
    $('bytes').textContent = count.bytes;
  },
});
SYMBOLS.forEach((symbol) => market.subscribe(`market:${symbol}`));
