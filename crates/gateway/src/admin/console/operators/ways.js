/** The last publications of a trace, each with its way: taken in, placed by the broker, heard on each node, written to sockets. */

import { make, panel, sync, write } from './dom.js';
import { bytes, clock, count, millis } from './words.js';

const KEPT = 12;
const SVG = 'http://www.w3.org/2000/svg';

export class Ways {
  element;
  /** The publication whose way is shown. */
  chosen;
  #list = make('ol', { class: 'ways' });
  #said = make('p', { class: 'empty' }, 'Nothing has been published yet.');
  /** Trace → what is known of it, newest last. */
  #ways = new Map();
  #onchoose;
  #isDue = false;

  constructor(onchoose) {
    this.#onchoose = onchoose;
    this.element = panel('Publications, newest first', this.#list, this.#said);
  }

  take(event) {
    if (event.trace === undefined) return;
    const way = this.#ways.get(event.trace) ?? this.#begin(event);
    if (event.type === 'published') Object.assign(way, { by: event.by === 'api' ? 'the API' : event.user ?? 'anonymous', bytes: event.bytes, from: event.node, brokerMs: event.ms });
    way.offset ??= event.offset;
    const node = way.nodes.get(event.node) ?? { written: 0, dropped: 0 };
    if (event.type === 'heard') node.heardMs = event.ms;
    if (event.type === 'written') Object.assign(node, { written: node.written + 1, lastMs: Math.max(node.lastMs ?? 0, event.ms) });
    if (event.type === 'dropped') node.dropped += 1;
    if (['heard', 'written', 'dropped'].includes(event.type)) way.nodes.set(event.node, node);
    this.#paintSoon();
  }

  #begin({ trace, at }) {
    const way = { trace, at, nodes: new Map() };
    this.#ways.set(trace, way);
    // The one that is looked at stays.
    for (const old of this.#ways.keys()) if (this.#ways.size > KEPT && old !== this.chosen) this.#ways.delete(old);
    return way;
  }

  #choose(trace) {
    this.chosen = this.chosen === trace ? undefined : trace;
    this.#onchoose(this.chosen);
    this.#paint();
  }

  #paintSoon() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#isDue = false;
    this.#said.hidden = this.#ways.size > 0;
    sync(this.#list, [...this.#ways.values()].reverse(), (it) => it.trace, (it) => this.#item(it), (item, way) => this.#write(item, way));
  }

  #item({ trace }) {
    const button = make('button', { type: 'button', onclick: () => this.#choose(trace) },
      ...['at', 'name', 'soft', 'number'].map((kind) => make('span', { class: kind })));
    return make('li', {}, button, make('ul', { class: 'way', hidden: true }));
  }

  #write(item, way) {
    const [button, list] = item.children;
    const nodes = [...way.nodes].sort();
    const lastMs = Math.max(0, ...nodes.map(([, it]) => it.lastMs ?? it.heardMs ?? 0));
    const written = nodes.reduce((sum, [, it]) => sum + it.written, 0);
    [clock(new Date(way.at)), way.offset === undefined ? '' : `#${way.offset}`, way.by ? `by ${way.by}` : '', written > 0 ? `${count(written)} in ${millis(lastMs)}` : '']
      .forEach((text, at) => write(button.children[at], text));
    const isChosen = way.trace === this.chosen;
    button.setAttribute('aria-expanded', String(isChosen));
    list.hidden = !isChosen;
    if (!isChosen) return;
    const scale = Math.max(lastMs, way.brokerMs ?? 0, 0.001);
    const lines = [
      ...(way.from ? [{ key: 'broker', name: 'broker', from: 0, to: way.brokerMs, text: `placed for ${way.from} in ${millis(way.brokerMs)}, ${bytes(way.bytes)}` }] : []),
      ...nodes.map(([name, it]) => ({ key: `node/${name}`, name, from: it.heardMs, to: it.lastMs ?? it.heardMs, text: told(it) })),
    ];
    sync(list, lines, (it) => it.key, ({ name }) => make('li', {}, make('span', { class: 'name' }, name), bar(), make('span', { class: 'soft' })), (line, it) => {
      const [wait, work] = line.children[1].children;
      const part = (ms) => Math.min(100, Math.max(0, ((ms ?? 0) / scale) * 100));
      wait.setAttribute('width', part(it.from));
      work.setAttribute('x', part(it.from));
      work.setAttribute('width', Math.max(1, part(it.to) - part(it.from)));
      write(line.children[2], it.text);
    });
  }
}

function told({ heardMs, lastMs, written, dropped }) {
  return [
    heardMs === undefined ? 'not heard of' : `heard after ${millis(heardMs)}`,
    written > 0 && `${count(written)} written by ${millis(lastMs)}`,
    dropped > 0 && `${count(dropped)} dropped`,
  ].filter(Boolean).join('; ');
}

/** From when it was heard until the last socket had taken it. */
function bar() {
  const [plot, wait, work] = ['svg', 'rect', 'rect'].map((it) => document.createElementNS(SVG, it));
  plot.setAttribute('viewBox', '0 0 100 10');
  plot.setAttribute('preserveAspectRatio', 'none');
  plot.setAttribute('aria-hidden', 'true');
  wait.setAttribute('class', 'wait');
  work.setAttribute('class', 'work');
  for (const it of [wait, work]) it.setAttribute('height', '10');
  plot.append(wait, work);
  return plot;
}
