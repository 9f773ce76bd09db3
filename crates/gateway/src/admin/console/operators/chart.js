/**
 * A small chart of the last minutes that moves: what is new comes in at the right edge, and everything glides left until the next sample.
 * Beside the picture it says the same in words, for who cannot see it; the pointer, or an arrow key, reads one moment off it.
 */

import { make } from './dom.js';
import { clock } from './words.js';

const SVG = 'http://www.w3.org/2000/svg';
const HEIGHT = 100;
/** A young past is not squeezed into a corner: so many samples fill the width, and more of them narrow it. */
const WIDTH_MIN = 45;

/** The least round number that is not below `n`: 1, 2 or 5, and zeros. */
export function ceiling(n) {
  if (!(n > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((it) => it * unit).find((it) => it >= n * 0.999_999);
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

function shape(kind, className) {
  const element = document.createElementNS(SVG, kind);
  element.setAttribute('class', className);
  return element;
}

export class Chart {
  element;
  #name;
  #written;
  #kept;
  #everyMs;
  #width = WIDTH_MIN;
  #samples = [];
  #plot = shape('svg', 'plot');
  #moving = shape('g', 'moving');
  #area = shape('polygon', 'area');
  #lines;
  #cursor = shape('line', 'cursor');
  #scale = make('span', { class: 'scale', 'aria-hidden': 'true' });
  #read = make('output', { class: 'read' });
  #at;

  /** `written` says a value; `series` is how many lines there are, the first of which is filled. */
  constructor(name, { written, series = 1, kept = 150, everyMs = 2_000 }) {
    this.#name = name;
    this.#written = written;
    this.#kept = kept;
    this.#everyMs = everyMs;
    this.#lines = Array.from({ length: series }, (_, at) => shape('polyline', `line line-${at}`));
    set(this.#plot, { preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    const half = shape('line', 'grid');
    set(half, { x1: 0, x2: kept, y1: HEIGHT / 2, y2: HEIGHT / 2 });
    this.#moving.append(this.#area, ...this.#lines);
    this.#plot.append(half, this.#moving, this.#cursor);
    this.element = make('div', { class: 'chart', role: 'img', tabindex: '0', 'aria-label': name }, this.#plot, this.#scale, this.#read);
    this.element.addEventListener('pointermove', (event) => {
      const box = this.element.getBoundingClientRect();
      this.#point(Math.round(((event.clientX - box.left) / box.width) * (this.#width - 1)));
    });
    for (const gone of ['pointerleave', 'blur']) this.element.addEventListener(gone, () => this.#point(undefined));
    this.element.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const last = this.#width - 1;
      this.#point(Math.min(last, Math.max(this.#width - this.#samples.length, (this.#at ?? last) + step)));
    });
  }

  /** Takes all of a past: `[{ at, values }]`, oldest first. A value may be `null`. */
  show(samples, isNew = true) {
    this.#samples = samples.slice(-this.#kept);
    const highest = ceiling(Math.max(0, ...this.#samples.flatMap(({ values }) => values.map((it) => it ?? 0))));
    this.#width = Math.max(WIDTH_MIN, this.#samples.length);
    set(this.#plot, { viewBox: `0 0 ${this.#width - 1} ${HEIGHT}` });
    const first = this.#width - this.#samples.length;
    const y = (value) => (HEIGHT - 2 - (value / highest) * (HEIGHT - 6)).toFixed(2);
    this.#lines.forEach((line, series) => {
      const points = this.#samples.flatMap(({ values }, at) => (values[series] === null ? [] : [`${first + at},${y(values[series])}`]));
      line.setAttribute('points', points.join(' '));
      if (series > 0) return;
      const ends = points.length > 0 ? [`${points.at(-1).split(',')[0]},${HEIGHT}`, `${points[0].split(',')[0]},${HEIGHT}`] : [];
      this.#area.setAttribute('points', [...points, ...ends].join(' '));
    });
    this.#scale.textContent = this.#samples.length > 0 ? this.#written(highest) : '';
    this.element.setAttribute('aria-label', this.#said());
    if (this.#at !== undefined) this.#point(this.#at);
    if (isNew && this.#samples.length > 1 && !matchMedia('(prefers-reduced-motion: reduce)').matches) {
      this.#moving.animate([{ transform: 'translateX(1px)' }, { transform: 'none' }], { duration: this.#everyMs, easing: 'linear' });
    }
  }

  #said() {
    const values = this.#samples.map((it) => it.values[0]).filter((it) => it !== null);
    if (values.length === 0) return `${this.#name}: nothing yet`;
    const [now, low, high] = [values.at(-1), Math.min(...values), Math.max(...values)].map(this.#written);
    return `${this.#name}: now ${now}, lowest ${low}, highest ${high}`;
  }

  /** Reads one moment off the chart. */
  #point(at) {
    const sample = at === undefined ? undefined : this.#samples[at - (this.#width - this.#samples.length)];
    this.#at = sample && at;
    this.element.classList.toggle('reading', sample !== undefined);
    if (!sample) return;
    set(this.#cursor, { x1: at, x2: at, y1: 0, y2: HEIGHT });
    this.#read.textContent = `${sample.values.map((it) => (it === null ? '–' : this.#written(it))).join(' · ')} at ${clock(new Date(sample.at))}`;
  }
}
