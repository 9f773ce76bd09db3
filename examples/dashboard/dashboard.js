/** A live dashboard on a conflating channel: a slow tab sees fewer values, and always the newest. */

import { Fanfare } from '/fanfare/index.js';

const HOSTS = ['alder', 'birch', 'cedar', 'elm', 'fir', 'hazel', 'oak', 'yew'];
/** As many values as a chart shows: at ten a second, twelve seconds. */
const KEPT = 120;
/** A young past is not squeezed into a corner. */
const WIDTH_MIN = 20;

const $ = (id) => document.getElementById(id);

const { gateway } = await (await fetch('/start')).json();
const fanfare = new Fanfare(gateway);
fanfare.on('state', ({ name }) => {
  $('state').textContent = name;
  $('state').dataset.state = name;
});

/** The last values of a host as a line, and what is below it as an area. */
function chart() {
  const svg = (tag) => document.createElementNS('http://www.w3.org/2000/svg', tag);
  const [element, area, line] = ['svg', 'polygon', 'polyline'].map(svg);
  element.setAttribute('preserveAspectRatio', 'none');
  element.setAttribute('aria-hidden', 'true');
  element.append(area, line);
  const past = [];
  const add = (value) => {
    past.push(value);
    if (past.length > KEPT) past.shift();
    const last = Math.max(WIDTH_MIN, past.length) - 1;
    const first = last + 1 - past.length;
    element.setAttribute('viewBox', `0 0 ${last} 100`);
    const points = past.map((it, at) => `${first + at},${(100 - it * 0.96).toFixed(1)}`).join(' ');
    line.setAttribute('points', points);
    area.setAttribute('points', `${first},100 ${points} ${last},100`);
  };
  return { element, add };
}

const level = (value) => (value >= 85 ? 'hot' : value >= 60 ? 'busy' : 'calm');

const count = { heard: 0, skipped: 0 };
for (const host of HOSTS) {
  const [card, name, value] = ['li', 'b', 'span'].map((it) => document.createElement(it));
  const { element, add } = chart();
  card.className = 'panel';
  name.textContent = host;
  card.append(name, value, element);
  $('gauges').append(card);
  fanfare.subscribe(`load:${host}`).on('message', ({ data, conflated = 0 }) => {
    add(data);
    card.dataset.level = level(data);
    value.textContent = `${data.toFixed(1)} %`;
    count.heard += 1;
    count.skipped += conflated;
    $('heard').textContent = count.heard;
    $('skipped').textContent = count.skipped;
  });
}
