/** All of the cluster on one page: what wants attention, four charts, the nodes, the busiest channels and the slowest clients. */

import { alerts } from './alerts.js';
import { Chart } from './chart.js';
import { link, make, panel, row, sync, table, write } from './dom.js';
import { hue } from './log.js';
import { bytes, count, duration, millis, places, plural, rate, short } from './words.js';

/** Lists that cost every node something are asked for more seldom. */
const LISTS_EVERY_MS = 6_000;
const SHOWN = 8;

const CHARTS = [
  { name: 'Connections', fields: ['connections'], written: count },
  { name: 'Messages in', unit: '/s', fields: ['in'], written: rate },
  { name: 'Messages out', unit: '/s', fields: ['out'], written: rate },
  { name: 'Delivery, p99', fields: ['p99', 'p50'], written: millis },
];

const NODES = [
  ['Node', 'name'], ['State', ''], ['Connections', 'number'], ['Users', 'number optional'], ['Channels', 'number optional'], ['In/s', 'number'], ['Out/s', 'number'],
  ['p99', 'number'], ['Waiting', 'number'], ['Memory', 'number optional'], ['Up', 'number optional'], ['Version', 'number optional'],
];

export function overview({ api, cluster, signal }) {
  const tiles = CHARTS.map(tile);
  const attention = make('ul', { class: 'alerts' });
  const calm = make('p', { class: 'calm' });
  const standing = make('section', { class: 'attention', 'aria-label': 'Alerts', role: 'status' }, calm, attention);
  const nodes = table('Nodes', NODES);
  const channels = list('Busiest channels', 'No channel is heard by anybody.');
  const clients = list('Slowest clients', 'Nothing waits for any client.');
  let unanswered = [];

  const show = () => {
    const found = alerts(cluster);
    for (const node of unanswered) found.push({ key: `${node}/unanswered`, level: 'warning', node, text: 'did not answer a question in time' });
    sync(attention, found, (it) => it.key, alertItem, writeAlert);
    calm.hidden = found.length > 0;
    const ready = cluster.nodes.filter((it) => it.ready).length;
    write(calm, cluster.nodes.length === 0 ? 'Looking for nodes…' : `All is well. ${plural(ready, 'node')} ready.`);
    standing.dataset.level = found[0]?.level ?? 'calm';
    tiles.forEach((it) => it.show(cluster));
    sync(nodes.body, cluster.nodes, (it) => it.node, () => row(NODES), writeNode);
  };
  cluster.addEventListener('change', show, { signal });
  show();

  const ask = async () => {
    const [heard, slow] = await Promise.all([api.call('channels'), api.call('connections', { slowest: true, limit: SHOWN })].map((it) => it.catch(() => undefined)));
    if (signal.aborted) return;
    if (heard) channels.show(busiest(heard.channels), channelItem);
    if (slow) clients.show(slow.connections, clientItem);
    unanswered = slow?.unanswered ?? [];
    const timer = setTimeout(ask, LISTS_EVERY_MS);
    signal.addEventListener('abort', () => clearTimeout(timer));
  };
  ask();

  return [
    make('h1', { tabindex: '-1' }, 'Overview'),
    standing,
    make('div', { class: 'tiles' }, ...tiles.map((it) => it.element)),
    panel('Nodes', nodes.whole),
    make('div', { class: 'halves' }, channels.element, clients.element),
  ];
}

function tile({ name, unit, fields, written }) {
  const figure = make('span', {}, '–');
  const detail = make('p', { class: 'detail' }, '\u00a0');
  const chart = new Chart(name, { written: unit ? (it) => `${written(it)}${unit}` : written, series: fields.length });
  let last;
  return {
    element: make('section', { class: 'tile', 'aria-label': name },
      make('h2', {}, name), make('p', { class: 'figure' }, figure, unit && make('small', {}, unit)), detail, chart.element),
    show({ past, nodes, trouble }) {
      const now = past.at(-1);
      chart.show(past.map((it) => ({ at: it.at, values: fields.map((field) => it[field]) })), now !== last);
      last = now;
      write(figure, now ? written(now[fields[0]]) : '–');
      write(detail, now ? details(name, now, nodes) : '\u00a0');
      chart.element.parentElement.classList.toggle('stale', trouble !== undefined);
    },
  };
}

function details(name, now, nodes) {
  const total = (field) => nodes.reduce((all, node) => all + (node[field] ?? 0), 0);
  switch (name) {
    case 'Connections': return `of ${count(total('connections_max'))} at most, ${plural(total('users'), 'user')}`;
    case 'Messages in': return `${count(total('messages_received'))} since the nodes started`;
    case 'Messages out': return `${plural(total('subscriptions'), 'subscription')} to channels`;
    default: return now.p50 === null ? 'nothing was delivered of late' : `half within ${millis(now.p50)}`;
  }
}

function alertItem() {
  return make('li', { class: 'alert' }, make('span', { class: 'level' }), make('span', { class: 'what' }), make('code', { class: 'runbook' }));
}

function writeAlert(item, { level, node, text, runbook }) {
  const [badge, what, book] = item.children;
  item.dataset.level = level;
  write(badge, level);
  write(what, node ? `${node} ${text}.` : text);
  write(book, runbook ? `runbooks/${runbook}.md` : '');
  book.hidden = !runbook;
}

function writeNode(line, node) {
  const [state, label] = node.draining ? ['draining', 'draining'] : node.ready ? ['ready', 'ready'] : ['bad', 'not ready'];
  const share = node.connections_max > 0 ? `${count(node.connections)} of ${count(node.connections_max)}` : '';
  const cells = [
    node.node, label, count(node.connections), count(node.users), count(node.channels), rate(node.messages_received_per_second), rate(node.messages_sent_per_second),
    millis(node.publish_to_write_p99_ms), bytes(node.queued_bytes), bytes(node.memory_bytes), duration(node.uptime_seconds), node.version,
  ];
  cells.forEach((text, at) => write(line.children[at], text));
  line.children[1].dataset.state = state;
  line.children[2].title = share;
}

function list(title, empty) {
  const items = make('ul', { class: 'ranks' });
  const nothing = make('p', { class: 'empty' }, empty);
  return {
    element: panel(title, items, nothing),
    show(found, item) {
      nothing.hidden = found.length > 0;
      items.replaceChildren(...found.map(item));
    },
  };
}

const busiest = (channels) => channels.sort((a, b) => b.connections - a.connections || (a.channel < b.channel ? -1 : 1)).slice(0, SHOWN);

const channelItem = ({ channel, connections }) => make('li', {}, link(places.channel(channel), channel, { class: `tag ${hue(channel)}` }), make('span', { class: 'number' }, plural(connections, 'subscriber')));

const clientItem = ({ session, user, node, queued_bytes: queued }) => make('li', {}, link(places.client(session), user ?? short(session), { class: 'name' }),
  make('span', { class: 'soft' }, node), make('span', { class: 'number' }, `${bytes(queued)} waiting`));
