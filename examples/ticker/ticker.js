/** Quotes as they come, in MessagePack: numbers stay numbers of eight bytes, and nothing is parsed from text. */

import * as msgpack from '/packages/@msgpack/msgpack/dist.esm/index.mjs';
import { Packed } from '/packed.mjs';

const SYMBOLS = ['ACME', 'BOLT', 'CORE', 'DUNE', 'EAST', 'FLUX'];
/** Quotes that a line has. */
const KEPT = 60;
/** A young past is not squeezed into a corner. */
const WIDTH_MIN = 12;

const $ = (id) => document.getElementById(id);
const svg = (tag) => document.createElementNS('http://www.w3.org/2000/svg', tag);
const whole = new Intl.NumberFormat('en');

/** Channel → what is known of a symbol, and the row that shows it. */
const quotes = new Map(SYMBOLS.map((symbol) => [`market:${symbol}`, { past: [], ...rowOf(symbol) }]));

function rowOf(symbol) {
  const row = $('quotes').insertRow();
  const name = document.createElement('th');
  name.scope = 'row';
  name.textContent = symbol;
  row.append(name);
  const cells = ['', '', '', 'change', 'line'].map((kind) => Object.assign(row.insertCell(), { className: kind }));
  const [plot, line] = [svg('svg'), svg('polyline')];
  plot.setAttribute('preserveAspectRatio', 'none');
  plot.setAttribute('aria-hidden', 'true');
  plot.append(line);
  cells.at(-1).append(plot);
  return { row, cells, plot, line };
}

function show(quote, { bid, ask, size }) {
  const { row, cells, plot, line, past } = quote;
  const before = past.at(-1) ?? bid;
  quote.first ??= bid;
  past.push(bid);
  if (past.length > KEPT) past.shift();
  const change = (bid / quote.first - 1) * 100;
  [bid.toFixed(2), ask.toFixed(2), whole.format(size), `${change < 0 ? '▼' : '▲'} ${Math.abs(change).toFixed(2)} %`].forEach((text, at) => { cells[at].textContent = text; });
  const [low, high] = [Math.min(...past), Math.max(...past)];
  const y = (price) => (high > low ? 100 - ((price - low) / (high - low)) * 100 : 50);
  const width = Math.max(WIDTH_MIN, past.length);
  plot.setAttribute('viewBox', `0 0 ${width - 1} 100`);
  line.setAttribute('points', past.map((price, at) => `${width - past.length + at},${y(price).toFixed(1)}`).join(' '));
  row.dataset.trend = change < 0 ? 'down' : 'up';
  row.className = '';
  void row.offsetWidth; // Begins the animation anew.
  row.className = bid >= before ? 'up' : 'down';
}

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
  onmessage: ({ channel, data }) => {
    const quote = quotes.get(channel);
    if (!quote) return;
    show(quote, data);
    count.heard += 1;
    $('heard').textContent = count.heard;
    $('bytes').textContent = count.bytes;
  },
});
quotes.forEach((_, channel) => market.subscribe(channel));
