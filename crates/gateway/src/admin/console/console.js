/**
 * The page: what `Connection` and `/status` tell, put where a person can see it.
 *
 * Everything that came from outside goes through `textContent`; there is no other way to text in this
 * file. The channels of a tab live in its address (`#channel=room:1&channel=news`), so that reloading it,
 * sharing it and opening a second tab are the same thing.
 */

import { Connection, SUBPROTOCOL } from './connection.js';
import { StandIn } from './fallback.js';

const MESSAGES_MAX = 200;
const TEXT_CHARS_MAX = 4_000;
const STATUS_EVERY_MS = 1_000;
const STATUS_WITHIN_MS = 5_000;
/** Behind a balancer each poll may meet another node; one unheard of for this long has gone. */
const NODE_FORGOTTEN_AFTER_MS = 15_000;
const NODES_MAX = 32;
const SAMPLES_MAX = 60;
const HUES = 8;

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

/** An element of class `name` holding text or other elements. */
function make(tag, name, ...content) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...content.map((it) => (it instanceof Node ? it : document.createTextNode(it))));
  return element;
}

/** Writes only what changed, so that screen readers are not told the same thing every second. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const count = (n) => (n >= 1_000_000 ? compact : whole).format(n);
const rate = (n) => (n < 10 ? n.toFixed(1).replace('.0', '') : count(Math.round(n)));

// The tab's address.

function channelsOfAddress() {
  const named = new URLSearchParams(location.hash.slice(1)).getAll('channel');
  return [...new Set(named)].filter((name) => /^[!-~]{1,255}$/.test(name));
}

function addressOf(names) {
  const spelt = names.map((name) => `channel=${encodeURIComponent(name).replaceAll('%3A', ':')}`);
  return spelt.length > 0 ? `#${spelt.join('&')}` : location.pathname;
}

// The log: the last messages, and what happened between them.

const log = {
  /** Entries that wait for the next frame: under load the page paints once for many of them. */
  waiting: [],
  scheduled: false,
  heard: 0,
  unseen: 0,

  add(entry) {
    this.waiting.push(entry);
    if (this.waiting.length > MESSAGES_MAX) this.waiting.shift();
    if (document.hidden) {
      this.unseen += 1;
      document.title = `(${compact.format(this.unseen)}) Fanfare`;
    }
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => this.paint());
  },

  paint() {
    this.scheduled = false;
    const scroll = $('scroll');
    const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 48;
    const list = $('log');
    list.append(...this.waiting.map((entry) => entry()));
    this.waiting = [];
    while (list.childElementCount > MESSAGES_MAX) list.firstElementChild.remove();
    write($('heard'), count(this.heard));
    if (atEnd) this.toEnd();
    else $('newer').hidden = false;
  },

  toEnd() {
    $('scroll').scrollTop = $('scroll').scrollHeight;
    $('newer').hidden = true;
  },

  clear() {
    this.waiting = [];
    $('log').replaceChildren();
    $('newer').hidden = true;
  },
};

/** A channel has the same colour in every tab. */
function hue(channel) {
  let sum = 0;
  for (let i = 0; i < channel.length; i += 1) sum = (sum * 31 + channel.charCodeAt(i)) >>> 0;
  return `hue-${sum % HUES}`;
}

function clock(date) {
  const two = (n) => String(n).padStart(2, '0');
  const time = make('time', 'at', `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`);
  time.dateTime = date.toISOString();
  return time;
}

function shortened(text) {
  const left = text.length - TEXT_CHARS_MAX;
  return left > 0 ? `${text.slice(0, TEXT_CHARS_MAX)}… (${count(left)} more characters)` : text;
}

function messageEntry(message, isOwn, date) {
  const { channel, data, offset, from, recovered, conflated } = message;
  const isText = typeof data === 'string';
  const body = make('span', isText ? 'body' : 'body json', shortened(isText ? data : JSON.stringify(data)));
  const marks = make('span', 'marks');
  if (isOwn) marks.append(make('span', 'mark own', 'this tab'));
  if (from?.user) marks.append(make('span', 'mark', String(from.user)));
  if (offset !== undefined) marks.append(make('span', 'mark', `#${offset}`));
  if (recovered) marks.append(make('span', 'mark', 'recovered'));
  if (conflated) marks.append(make('span', 'mark', `${conflated} older dropped`));
  return make('li', `entry message ${hue(channel)}${isOwn ? ' mine' : ''}`, clock(date), make('span', 'tag', channel), body, marks);
}

function note(text, kind = 'note') {
  const date = new Date();
  $('guide').hidden = true;
  log.add(() => make('li', `entry ${kind}`, clock(date), make('span', 'body', text)));
}

// What the connection tells.

/** The node this tab is, or was last, connected to. */
let shown = '';
/** The state before the present one: a connection that was never there cannot be lost. */
let before = 'stopped';
let welcomes = 0;

const STATES = {
  connecting: () => 'Connecting…',
  open: ({ isStandIn }) => (isStandIn ? 'Connected without WebSocket' : 'Connected'),
  waiting: ({ until }) => {
    const seconds = Math.ceil((until - performance.now()) / 1_000);
    return seconds > 0 ? `Reconnecting in ${seconds} s` : 'Reconnecting…';
  },
  stopped: ({ code }) => `Closed (${code})`,
};

function showState(state) {
  $('state').dataset.state = state.name;
  write($('state'), STATES[state.name](state));
  $('retry').hidden = state.name !== 'waiting' && state.name !== 'stopped';
}

const endpoint = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`;
const connection = new Connection(endpoint, {
  state(state) {
    showState(state);
    if (state.name === 'open') {
      write($('node'), state.node);
      write($('session'), state.session);
      $('session').title = state.session;
      write($('user'), state.user ?? 'anonymous');
      welcomes += 1;
      if (welcomes > 1) note(`Connected again, to ${state.node}.`, 'note good');
      shown = state.node;
      showNodes();
    } else {
      write($('session'), '–');
      write($('round-trip'), '–');
    }
    const why = state.reason ? `${state.code} ${state.reason}` : String(state.code);
    if (state.name === 'waiting' && before === 'open') note(`Connection lost (${why}). Coming back by itself.`, 'note bad');
    if (state.name === 'stopped') note(`The server closed the connection (${why}).`, 'note bad');
    before = state.name;
  },
  channels: showChannels,
  message(message, isOwn) {
    const date = new Date();
    log.heard += 1;
    $('guide').hidden = true;
    log.add(() => messageEntry(message, isOwn, date));
  },
  trouble({ code, reason, message, channel, text }) {
    const what = text ?? `${code} ${reason}${message ? `: ${message}` : ''}`;
    note(channel ? `${channel} — ${what}` : what, 'note bad');
  },
  roundTrip(ms) {
    write($('round-trip'), `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`);
  },
}, { standIn: () => new StandIn(location.origin) });

function showChannels() {
  const names = [...connection.channels.keys()];
  $('joined').replaceChildren(...[...connection.channels].map(channelItem));
  $('second-tab').href = addressOf(names);
  const address = addressOf(names);
  if (address !== (location.hash || location.pathname)) history.replaceState(null, '', address);

  const target = $('target');
  const states = [...connection.channels.values()].map((it) => it.state);
  $('step-join').classList.toggle('done', states.includes('joined'));
  const talkable = names.filter((name) => connection.channels.get(name).state !== 'refused');
  if (talkable.join(' ') !== [...target.options].map((it) => it.value).join(' ')) {
    const before = target.value;
    target.replaceChildren(...talkable.map((name) => new Option(name, name)));
    if (talkable.length === 0) target.append(new Option('no channel', ''));
    if (talkable.includes(before)) target.value = before;
  }
  const ready = connection.state.name === 'open' && states.includes('joined');
  target.disabled = talkable.length === 0;
  $('text').disabled = talkable.length === 0;
  $('send').disabled = !ready;
}

function channelItem([name, { state, error }]) {
  const leave = make('button', 'leave', '×');
  leave.type = 'button';
  leave.setAttribute('aria-label', `Leave ${name}`);
  leave.addEventListener('click', () => {
    connection.leave(name);
    $('channel').focus();
  });
  const states = { joining: 'joining…', joined: 'joined', refused: error ? `${error.code} ${error.reason}` : 'refused' };
  const item = make('li', hue(name), make('span', 'tag', name), make('span', 'standing', states[state]), leave);
  item.dataset.channel = name;
  item.dataset.state = state;
  return item;
}

// What the nodes tell: `/status`, once a second.

/** Node name → its last status, when it came, its rates, and their recent past. */
const nodes = new Map();

function sampled(status, now) {
  const before = nodes.get(status.node);
  const rates = { in: 0, out: 0 };
  const past = before?.past ?? [];
  // A counter that went back belongs to a node that started anew under the same name.
  if (before && status.messages_received >= before.status.messages_received && status.messages_sent >= before.status.messages_sent) {
    const seconds = (now - before.now) / 1_000;
    rates.in = (status.messages_received - before.status.messages_received) / seconds;
    rates.out = (status.messages_sent - before.status.messages_sent) / seconds;
  }
  past.push({ ...rates, connections: status.connections });
  if (past.length > SAMPLES_MAX) past.shift();
  nodes.delete(status.node);
  nodes.set(status.node, { status, now, rates, past });
  for (const [name, node] of nodes) {
    if (now - node.now > NODE_FORGOTTEN_AFTER_MS || nodes.size > NODES_MAX) nodes.delete(name);
  }
}

function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} days`;
}

/** The tiles tell of the node this tab is connected to, or else of the one that answered last. */
function showNodes() {
  const node = nodes.get(shown) ?? [...nodes.values()].at(-1);
  if (!node) return;
  const { status, rates, past } = node;
  write($('tile-node'), status.node);
  write($('connections'), count(status.connections));
  write($('received'), count(status.messages_received));
  write($('sent'), count(status.messages_sent));
  write($('rate-in'), rate(rates.in));
  write($('rate-out'), rate(rates.out));
  write($('channel-count'), count(status.channels));
  write($('subscriptions'), `${count(status.subscriptions)} subscription${status.subscriptions === 1 ? '' : 's'}`);
  draw($('spark-connections'), past.map((it) => it.connections));
  draw($('spark-in'), past.map((it) => it.in));
  draw($('spark-out'), past.map((it) => it.out));
  const { broker } = status;
  write($('broker'), status.draining ? 'node is draining' : broker ? `${broker.kind}${broker.connected ? '' : ', out of reach'}` : '–');
  write($('version'), status.version ?? '–');
  write($('uptime'), duration(status.uptime_seconds ?? 0));

  $('nodes-part').hidden = nodes.size < 2;
  const byName = [...nodes.values()].sort((a, b) => (a.status.node < b.status.node ? -1 : 1));
  $('nodes').replaceChildren(...byName.map((it) => make('tr', it.status.node === shown ? 'here' : '',
    make('td', 'name', it.status.node), make('td', '', count(it.status.connections)), make('td', '', rate(it.rates.in)), make('td', '', rate(it.rates.out)))));
}

const SVG = 'http://www.w3.org/2000/svg';

/** The line ends at the right edge; its highest point sets the scale. */
function draw(svg, values) {
  if (!svg.firstChild) svg.append(document.createElementNS(SVG, 'polygon'), document.createElementNS(SVG, 'polyline'));
  const highest = Math.max(1, ...values);
  const points = values.map((value, i) => `${SAMPLES_MAX - values.length + i},${(19 - (value / highest) * 18).toFixed(1)}`);
  const [area, line] = svg.children;
  line.setAttribute('points', points.join(' '));
  area.setAttribute('points', points.length > 0 ? `${SAMPLES_MAX - values.length},20 ${points.join(' ')} ${SAMPLES_MAX - 1},20` : '');
}

async function poll() {
  if (connection.state.name === 'waiting') showState(connection.state);
  try {
    const answer = await fetch('/status', { cache: 'no-store', signal: AbortSignal.timeout(STATUS_WITHIN_MS) });
    if (!answer.ok) throw new Error(`/status answered ${answer.status}`);
    const status = await answer.json();
    $('operators').hidden = !status.console;
    sampled(status, performance.now());
    document.body.classList.remove('stale');
    showNodes();
  } catch {
    // The figures stay, dimmed: the connection's own state says what is wrong.
    document.body.classList.add('stale');
  }
  setTimeout(poll, STATUS_EVERY_MS);
}

// What the person does.

/** Text is sent as a JSON string; what already is JSON is sent as it is. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

$('join').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = $('channel').value;
  connection.join(name);
  $('channel').value = '';
  $('target').value = name;
  $('text').focus();
});

$('publish').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('text').value;
  if (text === '') return;
  if (connection.publish($('target').value, parsed(text))) $('text').value = '';
  else note('Not connected: nothing was sent.', 'note bad');
});

$('second-tab').addEventListener('click', () => $('step-tab').classList.add('done'));
$('retry').addEventListener('click', () => connection.connect());
$('newer').addEventListener('click', () => log.toEnd());
$('clear').addEventListener('click', () => log.clear());
$('scroll').addEventListener('scroll', () => {
  const { scrollHeight, scrollTop, clientHeight } = $('scroll');
  if (scrollHeight - scrollTop - clientHeight < 48) $('newer').hidden = true;
});

window.addEventListener('online', () => connection.state.name === 'waiting' && connection.connect());
document.addEventListener('visibilitychange', () => {
  log.unseen = 0;
  document.title = 'Fanfare';
});

function followAddress() {
  const wanted = channelsOfAddress();
  for (const name of [...connection.channels.keys()]) if (!wanted.includes(name)) connection.leave(name);
  for (const name of wanted) connection.join(name);
}
window.addEventListener('hashchange', followAddress);

write($('command'), `npx wscat -s ${SUBPROTOCOL} -c ${endpoint}`);
followAddress();
showChannels();
connection.connect();
poll();
if (channelsOfAddress().length > 0) {
  $('channel').value = '';
  $('text').focus();
} else {
  $('channel').select();
}
