/** One channel: what is said on it now and was before, who is there, and a way to say something oneself. */

import { confirm, link, make, panel, sync, write } from './dom.js';
import { Log, entry, hue } from './log.js';
import { count, places, plural, short, trace, typed } from './words.js';

const EVERY_MS = 4_000;
const MEMBERS_SHOWN = 100;
const PAST_SHOWN = 50;

export function channel({ api, live, signal, name }) {
  const members = memberPanel(api, name, signal);
  const past = pastPanel(api, name, signal);
  const now = nowPanel(api, live, name, signal);
  return [
    make('h1', { tabindex: '-1' }, make('span', { class: `tag big ${hue(name)}` }, name)),
    make('p', { class: 'facts-line' }, members.counts, api.seesCluster && link(places.clientsOf('channel', name), 'Its clients'), api.can('admin') && link(trace('channel', name), 'Trace it')),
    make('div', { class: 'room' }, now, make('div', { class: 'stack' }, members.element, past)),
  ];
}

function nowPanel(api, live, name, signal) {
  const log = new Log({ empty: 'Nothing has been said since you listen.' });
  const standing = make('span', { class: 'pill', role: 'status', data: { state: 'stopped' } }, 'Not listening');
  const listen = make('button', { type: 'button', class: 'quiet' }, 'Listen');
  let stop;
  const STATES = { joining: ['connecting', 'Joining…'], joined: ['open', 'Listening'], refused: ['stopped', 'Refused'] };
  const show = (state, text) => {
    standing.dataset.state = state;
    write(standing, text);
    write(listen, stop ? 'Stop' : 'Listen');
  };
  const toggle = () => {
    if (stop) {
      stop();
      stop = undefined;
      show('stopped', 'Not listening');
      return;
    }
    stop = () => {};
    stop = live.hear(name, {
      message: (event) => log.message(event),
      state: (known) => known && stop && show(...STATES[known.state]),
      trouble: ({ code, reason, message, text }) => log.note(text ?? `${code} ${reason}${message ? `: ${message}` : ''}`, 'bad'),
    });
    show('connecting', 'Joining…');
  };
  listen.addEventListener('click', toggle);
  signal.addEventListener('abort', () => stop?.());
  const element = panel('Now', make('div', { class: 'heading' }, standing, api.can('read') && listen), log.element, api.can('publish') && publishForm(api, name, log));
  if (api.can('read')) toggle();
  return element;
}

function publishForm(api, name, log) {
  const text = make('input', { id: 'text', 'aria-label': 'Message: text, or any JSON', placeholder: 'Text, or any JSON', required: true, autocomplete: 'off', spellcheck: 'false' });
  const send = make('button', { type: 'submit' }, 'Publish');
  return make('form', {
    class: 'row compose',
    onsubmit: async (event) => {
      event.preventDefault();
      send.disabled = true;
      try {
        const { offset } = await api.call('publish', { channel: name, data: typed(text.value) });
        log.note(offset === undefined ? 'Published.' : `Published as #${offset}.`, 'good');
        text.value = '';
      } catch (error) {
        log.note(`Not published: ${error.message}`, 'bad');
      }
      send.disabled = false;
      text.focus();
    },
  }, text, send);
}

function memberPanel(api, name, signal) {
  const counts = make('span', {}, '–');
  const list = make('ul', { class: 'members' });
  const said = make('p', { class: 'empty' });
  let timer;
  const ask = async () => {
    try {
      const { users, connections, members = [] } = await api.call('presence', { channel: name });
      write(counts, `${plural(connections, 'subscriber')}, ${plural(users, 'user')}`);
      sync(list, members.slice(0, MEMBERS_SHOWN), (it) => it.session, (it) => member(api, it), () => {});
      write(said, members.length === 0 ? 'Nobody is subscribed.' : members.length > MEMBERS_SHOWN ? `and ${count(members.length - MEMBERS_SHOWN)} more` : '');
    } catch (error) {
      write(said, error.message);
    }
    if (!signal.aborted) timer = setTimeout(ask, EVERY_MS);
  };
  signal.addEventListener('abort', () => clearTimeout(timer));
  if (api.can('read')) ask();
  return { counts, element: panel('Members', list, said) };
}

function member(api, { user, session, info }) {
  const who = user ?? 'anonymous';
  return make('li', {}, api.seesCluster ? link(places.client(session), who) : make('span', {}, who), make('span', { class: 'soft name' }, short(session)),
    info !== null && info !== undefined && make('span', { class: 'json soft' }, JSON.stringify(info).slice(0, 200)));
}

function pastPanel(api, name, signal) {
  const list = make('ol', { class: 'log past', tabindex: '0', 'aria-label': 'History' });
  const said = make('p', { class: 'empty' });
  const read = async () => {
    try {
      const { messages } = await api.call('history', { channel: name, reverse: true, limit: PAST_SHOWN });
      if (signal.aborted) return;
      list.replaceChildren(...messages.map((it) => entry({ ...it, channel: name })));
      write(said, messages.length === 0 ? 'Nothing is kept.' : messages.length === PAST_SHOWN ? `The last ${PAST_SHOWN}; there may be more.` : '');
    } catch (error) {
      list.replaceChildren();
      write(said, error.message);
    }
  };
  const forget = async () => {
    const answer = await confirm('Forget the history?', `What was published on ${name} can then be read and recovered by nobody. Subscribers are not told.`,
      [['', 'Keep it', 'quiet'], ['forget', 'Forget it', 'danger']]);
    if (answer !== 'forget') return;
    await api.call('history/remove', { channel: name }).catch((error) => write(said, error.message));
    await read();
  };
  if (api.can('read')) read();
  const again = make('button', { type: 'button', class: 'quiet', onclick: read }, 'Read again');
  const remove = make('button', { type: 'button', class: 'quiet', onclick: forget }, 'Forget…');
  return panel('History, newest first', make('div', { class: 'heading' }, api.can('read') && again, api.can('admin') && remove), list, said);
}
