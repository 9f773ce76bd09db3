/** Everybody's pointer on one board. A move is worth nothing once there is a newer one. */

import { Fanfare } from '/fanfare/index.js';

const EVERY_MS = 40;

const $ = (id) => document.getElementById(id);
const board = $('board');
const { gateway } = await (await fetch('/start')).json();
const fanfare = new Fanfare(gateway);
const channel = fanfare.subscribe(`board:${new URLSearchParams(location.search).get('board') ?? '1'}`, { presence: true });

/** Whoever comes without a name is called like this, the same by everybody. */
const NAMES = ['Otter', 'Heron', 'Badger', 'Lynx', 'Marten', 'Plover', 'Sable', 'Wren', 'Hare', 'Ibis', 'Newt', 'Stoat'];
const number = (session) => parseInt(session.slice(0, 6), 16);
const nameOf = (session) => `${NAMES[number(session) % NAMES.length]} ${session.slice(0, 2)}`;

/** Session → the element of its pointer. */
const cursors = new Map();

function cursor(session) {
  if (!cursors.has(session)) {
    const element = document.createElement('div');
    element.className = 'cursor';
    element.style.setProperty('--hue', number(session) % 360);
    const name = document.createElement('span');
    name.textContent = nameOf(session);
    element.append(name);
    board.append(element);
    cursors.set(session, element);
  }
  return cursors.get(session);
}

function forget(session) {
  cursors.get(session)?.remove();
  cursors.delete(session);
}

let others = new Set();
const count = () => { $('others').textContent = others.size; };

fanfare.on('state', (state) => {
  $('state').textContent = state.name;
  $('state').dataset.state = state.name;
});
channel.on('subscribed', async () => {
  const { members } = await channel.presence();
  others = new Set(members.map((it) => it.session).filter((it) => it !== fanfare.state.session));
  for (const session of cursors.keys()) if (!others.has(session)) forget(session);
  count();
});
channel.on('joined', ({ member }) => {
  if (member.session !== fanfare.state.session) others.add(member.session);
  count();
});
channel.on('left', ({ member }) => {
  others.delete(member.session);
  forget(member.session);
  count();
});
channel.on('message', ({ data: { session, x, y, pressed } = {} }) => {
  // What others say is not to be relied on: only who is here has a pointer, and only on the board.
  if (!others.has(session) || !(x >= 0 && x <= 1 && y >= 0 && y <= 1)) return;
  // Of the board, whose size is another in each window.
  const place = { left: `${x * 100}%`, top: `${y * 100}%` };
  Object.assign(cursor(session).style, place);
  if (pressed === true) ring(session, place);
});

function ring(session, place) {
  const element = document.createElement('div');
  element.className = 'ring';
  element.style.setProperty('--hue', number(session) % 360);
  Object.assign(element.style, place);
  element.addEventListener('animationend', () => element.remove());
  board.append(element);
}

function say(what) {
  const { session } = fanfare.state;
  if (session) channel.publish({ session, ...what }, { key: null, echo: false, ordered: false }).catch(() => {});
}

function placeOf(event) {
  const box = board.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
}

let last;
let timer;
board.addEventListener('pointermove', (event) => {
  last = placeOf(event);
  timer ??= setTimeout(() => {
    timer = undefined;
    say(last);
  }, EVERY_MS);
});
board.addEventListener('pointerdown', (event) => say({ ...placeOf(event), pressed: true }));
