/** One client: what is known of it, what it hears, and for administrators the ways to steer it. */

import { confirm, link, make, panel, sync, write } from './dom.js';
import { Log, hue } from './log.js';
import { bytes, isChannel, places, short, since, trace } from './words.js';

const EVERY_MS = 2_000;
/** As many channels of a client as are listened to at a time. */
const FOLLOWED_MAX = 50;

const FACTS = ['User', 'Node', 'Address', 'Transport', 'Protocol', 'Connected for', 'Waiting for it', 'Session'];

export function client({ api, live, signal, session }) {
  const title = make('h1', { tabindex: '-1' }, short(session));
  const values = FACTS.map(() => make('dd', { class: 'name' }, '–'));
  const facts = make('dl', { class: 'facts' }, ...FACTS.map((name, at) => make('div', {}, make('dt', {}, name), values[at])));
  const heard = make('ul', { class: 'members' });
  const said = make('p', { class: 'empty', role: 'status' });
  const traced = link(places.trace, 'Trace this user', { hidden: true });
  const steering = api.can('admin') && actions(api, session, said);
  const followed = followPanel(live, () => [...heard.children].map((it) => it.dataset.key), signal);
  let timer;
  const ask = async () => {
    try {
      const { connections: [it], unanswered } = await api.call('connections', { session });
      if (signal.aborted) return;
      if (it) {
        write(title, it.user ?? 'Anonymous client');
        [it.user ?? 'anonymous', it.node, it.address, it.transport, it.protocol, since(it.connected), bytes(it.queued_bytes), it.session].forEach((text, at) => write(values[at], text));
        traced.hidden = it.user === null || !api.can('admin');
        if (!traced.hidden) traced.href = trace('user', it.user);
        const channels = it.channels ?? [];
        sync(heard, channels, (name) => name, (name) => channelItem(api, session, name, said), () => {});
        write(said, channels.length === 0 ? 'It hears nothing.' : '');
        facts.classList.remove('stale');
      } else {
        write(said, unanswered.length > 0 ? `No answer from ${unanswered.join(', ')}, which may hold it.` : 'It is not connected.');
        facts.classList.add('stale');
        heard.replaceChildren();
      }
      if (steering) steering.hidden = !it;
    } catch (error) {
      write(said, error.message);
    }
    if (!signal.aborted) timer = setTimeout(ask, EVERY_MS);
  };
  signal.addEventListener('abort', () => clearTimeout(timer));
  ask();
  return [
    title,
    make('p', { class: 'facts-line' }, traced),
    make('div', { class: 'room' },
      make('div', { class: 'stack' }, panel('Client', facts, steering), panel('Hears', heard, said)),
      followed),
  ];
}

function channelItem(api, session, name, said) {
  const leave = make('button', {
    type: 'button', class: 'quiet', 'aria-label': `Unsubscribe it from ${name}`,
    onclick: () => api.call('unsubscribe', { session, channel: name }).catch((error) => write(said, error.message)),
  }, 'Unsubscribe');
  return make('li', {}, link(places.channel(name), name, { class: `tag ${hue(name)}` }), api.can('admin') && leave);
}

/** What only administrators are offered. */
function actions(api, session, said) {
  const disconnect = async () => {
    const code = await confirm('Disconnect this client?', 'Who may come back does so by itself, within a moment.',
      [['', 'Leave it', 'quiet'], ['1001', 'It may come back', ''], ['4403', 'For good', 'danger']]);
    if (!code) return;
    await api.call('disconnect', { session, code: Number(code) }).catch((error) => write(said, error.message));
  };
  const name = make('input', { 'aria-label': 'Channel to subscribe it to', placeholder: 'room:1', required: true, maxlength: '255', spellcheck: 'false', autocapitalize: 'off' });
  const subscribe = async (event) => {
    event.preventDefault();
    if (!isChannel(name.value)) {
      write(said, 'A channel has 1 to 255 printable ASCII characters, none of them a space.');
      return;
    }
    try {
      await api.call('subscribe', { session, channel: name.value });
      name.value = '';
    } catch (error) {
      write(said, error.message);
    }
  };
  return make('div', { class: 'actions' },
    make('form', { class: 'row', onsubmit: subscribe }, name, make('button', { type: 'submit', class: 'quiet' }, 'Subscribe it')),
    make('button', { type: 'button', class: 'danger', onclick: disconnect }, 'Disconnect…'));
}

/** Listens to what the client listens to. It is another subscriber: what was dropped or conflated for the client is heard here. */
function followPanel(live, channels, signal) {
  const log = new Log({ named: true, empty: 'Follow it to hear what is said on its channels.' });
  const button = make('button', { type: 'button', class: 'quiet' }, 'Follow');
  let stops;
  button.addEventListener('click', () => {
    if (stops) {
      stops.forEach((stop) => stop());
      stops = undefined;
    } else {
      const names = channels();
      const told = names.slice(0, FOLLOWED_MAX);
      stops = told.map((name) => live.hear(name, { message: (event) => log.message(event), state: () => {}, trouble: ({ code, reason, text }) => log.note(`${name}: ${text ?? `${code} ${reason}`}`, 'bad') }));
      log.note(names.length > told.length ? `Following the first ${FOLLOWED_MAX} of its ${names.length} channels.` : `Following ${told.length === 1 ? 'its channel' : `its ${told.length} channels`}.`);
    }
    write(button, stops ? 'Stop' : 'Follow');
  });
  signal.addEventListener('abort', () => stops?.forEach((stop) => stop()));
  return panel('What it is told', make('div', { class: 'heading' }, button), log.element);
}
