/** A chat room: messages with history, who is there, and who is typing. */

import { Fanfare } from '/fanfare/index.js';

const TYPING_EVERY_MS = 1_000;
const TYPING_FOR_MS = 3_000;

const $ = (id) => document.getElementById(id);

/** Names and texts are other people's: they become text, never markup. */
function item(className, ...parts) {
  const element = document.createElement('li');
  element.className = className;
  element.append(...parts);
  return element;
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Their first letter, in a colour that they have everywhere. */
function avatar(user) {
  const element = make('span', 'avatar', ([...user][0] ?? '?').toUpperCase());
  element.setAttribute('aria-hidden', 'true');
  element.style.setProperty('--hue', [...user].reduce((sum, it) => (sum * 31 + it.codePointAt(0)) % 360, 7));
  return element;
}

async function enter(me) {
  const { gateway, token } = await (await fetch(`/start?user=${encodeURIComponent(me)}`)).json();
  if (!token) throw new Error('a name has letters, digits, spaces, - and _');
  // Asked again whenever one is needed: tokens expire, conversations go on.
  const getToken = async () => (await (await fetch(`/start?user=${encodeURIComponent(me)}`)).json()).token;
  const fanfare = new Fanfare(gateway, { token, getToken });
  fanfare.on('state', ({ name }) => {
    $('state').textContent = name;
    $('state').dataset.state = name;
  });
  const name = new URLSearchParams(location.search).get('room') ?? 'lobby';
  const room = fanfare.subscribe(`room:${name}`, { rewind: 50, presence: true });
  const typing = fanfare.subscribe(`typing:${name}`);
  showMessages(room, me);
  showMembers(room);
  showTyping(typing, me);
  $('say').addEventListener('submit', async (event) => {
    event.preventDefault();
    const text = $('text').value;
    $('text').value = '';
    try {
      // Published once and in order, however often the connection is lost meanwhile.
      await room.publish({ text });
    } catch (error) {
      $('text').value = text;
      $('messages').append(item('gap', `not sent: ${error.message}`));
    }
  });
}

function showMessages(room, me) {
  const list = $('messages');
  const add = (element) => {
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(element);
    while (list.childElementCount > 500) list.firstElementChild.remove();
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  };
  room.on('message', ({ data, from }) => {
    const user = from?.user ?? '?';
    add(item(user === me ? 'mine' : '', avatar(user), make('b', '', user), make('span', 'text', String(data?.text))));
  });
  room.on('gap', () => add(item('gap', 'Some messages are gone.')));
}

/** Who is there is asked once the room is entered, and again after every absence; in between it is told. */
function showMembers(room) {
  const sessions = new Map();
  const show = () => $('here').replaceChildren(...[...new Set(sessions.values())].sort().map((user) => item('', avatar(user), user)));
  room.on('subscribed', async () => {
    const { members } = await room.presence();
    sessions.clear();
    members.forEach(({ session, user }) => sessions.set(session, user));
    show();
  });
  room.on('joined', ({ member }) => { sessions.set(member.session, member.user); show(); });
  room.on('left', ({ member }) => { sessions.delete(member.session); show(); });
}

/** "I am typing" is worth nothing a moment later: no history, no second try, and nothing waits for it. */
function showTyping(typing, me) {
  const until = new Map();
  const show = () => {
    const now = Date.now();
    for (const [user, end] of until) if (end <= now) until.delete(user);
    const names = [...until.keys()];
    $('typing').textContent = names.length === 0 ? '' : `${names.join(', ')} ${names.length === 1 ? 'is' : 'are'} typing…`;
  };
  typing.on('message', ({ from }) => {
    if (!from || from.user === me) return;
    until.set(from.user, Date.now() + TYPING_FOR_MS);
    show();
    setTimeout(show, TYPING_FOR_MS + 50);
  });
  let said = 0;
  $('text').addEventListener('input', () => {
    if (Date.now() - said < TYPING_EVERY_MS) return;
    said = Date.now();
    typing.publish({}, { key: null, echo: false, ordered: false }).catch(() => {});
  });
}

$('enter').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    await enter($('name').value.trim());
    $('enter').hidden = true;
    $('room').hidden = false;
    $('text').focus();
  } catch (error) {
    $('state').textContent = error.message;
  }
});
