/**
 * The last messages of one or more channels, painted once a frame however many come, and held still while somebody reads further up.
 */

import { make, write } from './dom.js';
import { clock, count, payload } from './words.js';

const KEPT = 200;
const TEXT_CHARS_MAX = 4_000;
const NEAR_END_PX = 40;
const HUES = 8;

/** A channel has the same colour everywhere. */
export function hue(channel) {
  let sum = 0;
  for (let i = 0; i < channel.length; i += 1) sum = (sum * 31 + channel.charCodeAt(i)) >>> 0;
  return `hue-${sum % HUES}`;
}

function shortened(text) {
  const left = text.length - TEXT_CHARS_MAX;
  return left > 0 ? `${text.slice(0, TEXT_CHARS_MAX)}… (${count(left)} more characters)` : text;
}

/** A message as an entry of a list; `date` is left out where nobody knows when it came. */
export function entry({ channel, data, offset, from, recovered, conflated }, { date, named = false } = {}) {
  const marks = [
    from?.user && ['mark who', String(from.user)],
    offset !== undefined && ['mark', `#${offset}`],
    recovered && ['mark', 'recovered'],
    conflated && ['mark', `${count(conflated)} older dropped`],
  ].filter(Boolean).map(([kind, text]) => make('span', { class: kind }, text));
  return make('li', { class: 'entry message' },
    date && make('time', { class: 'at', datetime: date.toISOString() }, clock(date)),
    named && make('span', { class: `tag ${hue(channel)}` }, channel),
    make('span', { class: typeof data === 'string' ? 'body' : 'body json' }, shortened(payload(data))),
    make('span', { class: 'marks' }, ...marks));
}

export class Log {
  element;
  #list = make('ol', { class: 'log' });
  #scroll;
  #newer;
  #count = make('span', { class: 'number' }, '0');
  #waiting = [];
  #isDue = false;
  #heard = 0;
  #named;
  #kept;

  /** `named`: each message says which channel it is of; `counted` is what they are called. */
  constructor({ named = false, empty, kept = KEPT, counted = 'heard here', newer = 'Newer messages' }) {
    this.#named = named;
    this.#kept = kept;
    this.#newer = make('button', { type: 'button', class: 'newer', hidden: true, onclick: () => this.#toEnd() }, `${newer} ↓`);
    this.#scroll = make('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': 'Messages, newest last', onscroll: () => this.#atEnd() && (this.#newer.hidden = true) },
      make('div', { role: 'log', 'aria-label': 'Messages' }, this.#list, make('p', { class: 'empty' }, empty)));
    this.element = make('div', { class: 'talk' }, this.#scroll, this.#newer,
      make('p', { class: 'detail' }, this.#count, ` ${counted}`));
  }

  message(event) {
    const date = new Date();
    this.add(() => entry(event, { date, named: this.#named }));
  }

  /** Something of whoever calls, counted like a message. */
  add(make) {
    this.#heard += 1;
    this.#add(make);
  }

  /** Has something done to what is shown; who has read to the end stays there. */
  change(act) {
    const wasAtEnd = this.#atEnd();
    act();
    if (wasAtEnd) this.#toEnd();
  }

  note(text, kind = '') {
    const date = new Date();
    this.#add(() => make('li', { class: `entry note ${kind}` }, make('time', { class: 'at', datetime: date.toISOString() }, clock(date)), make('span', { class: 'body' }, text)));
  }

  #add(entry) {
    this.#waiting.push(entry);
    if (this.#waiting.length > this.#kept) this.#waiting.shift();
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#isDue = false;
    const wasAtEnd = this.#atEnd();
    this.#list.append(...this.#waiting.map((make) => make()));
    this.#waiting = [];
    while (this.#list.childElementCount > this.#kept) this.#list.firstElementChild.remove();
    write(this.#count, count(this.#heard));
    if (wasAtEnd) this.#toEnd();
    else this.#newer.hidden = false;
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
    return scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
  }

  #toEnd() {
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#newer.hidden = true;
  }
}
