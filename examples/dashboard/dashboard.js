/** A live dashboard on a conflating channel: a slow tab sees fewer values, and always the newest. */

import { Fanfare } from '/fanfare/index.js';

const HOSTS = ['alder', 'birch', 'cedar', 'elm', 'fir', 'hazel', 'oak', 'yew'];
const $ = (id) => document.getElementById(id);

const { gateway } = await (await fetch('/start')).json();
const fanfare = new Fanfare(gateway);
fanfare.on('state', ({ name }) => {
  $('state').textContent = name;
  $('state').dataset.state = name;
});

const count = { heard: 0, skipped: 0 };
for (const host of HOSTS) {
  const [row, name, bar, value] = ['li', 'b', 'meter', 'span'].map((it) => document.createElement(it));
  row.dataset.host = host;
  name.textContent = host;
  Object.assign(bar, { min: 0, max: 100, high: 80, optimum: 0 });
  bar.setAttribute('aria-label', `Load of ${host}`);
  row.append(name, bar, value);
  $('gauges').append(row);
  fanfare.subscribe(`load:${host}`).on('message', ({ data, conflated = 0 }) => {
    bar.value = data;
    value.textContent = `${data} %`;
    count.heard += 1;
    count.skipped += conflated;
    $('heard').textContent = count.heard;
    $('skipped').textContent = count.skipped;
  });
}
