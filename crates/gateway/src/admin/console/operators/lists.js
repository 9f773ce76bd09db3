/** Looking for a channel, and for a client. */

import { link, make, panel, row, sync, table, write } from './dom.js';
import { hue } from './log.js';
import { bytes, count, isChannel, pattern, places, plural, short, since } from './words.js';

const EVERY_MS = 4_000;
/** As many as a person reads; more is what the search is for. */
const CHANNELS_SHOWN = 200;
const CLIENTS_A_PAGE = 50;

const CHANNELS = [['Channel', 'name'], ['Users', 'number'], ['Subscribers', 'number']];
const CLIENTS = [
  ['Session', 'name'], ['User', 'name'], ['Node', 'name optional'], ['Address', 'name optional'], ['Transport', ''], ['Protocol', 'optional'], ['For', 'number'], ['Waiting', 'number'],
];

/** Asks again and again, until the view is left. */
function again(ask, signal) {
  let timer;
  const turn = async () => {
    clearTimeout(timer);
    await ask();
    clearTimeout(timer);
    if (!signal.aborted) timer = setTimeout(turn, EVERY_MS);
  };
  signal.addEventListener('abort', () => clearTimeout(timer));
  turn();
  return turn;
}

function search(label, value, onsearch) {
  const input = make('input', { type: 'search', id: 'search', 'aria-label': label, placeholder: label, value, spellcheck: 'false', autocapitalize: 'off', maxlength: '255' });
  let timer;
  input.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => onsearch(input.value.trim()), 200);
  });
  return { input, form: make('form', { class: 'row', role: 'search', onsubmit: (event) => { event.preventDefault(); onsearch(input.value.trim(), true); } }, input) };
}

export function channels({ api, signal, query, go }) {
  let wanted = query.get('q') ?? '';
  const found = table('Channels', CHANNELS);
  const said = make('p', { class: 'detail', role: 'status' });
  const open = make('p', { class: 'open', hidden: true });
  const ask = async () => {
    const asked = wanted;
    try {
      const { channels: all } = await api.call('channels', { pattern: pattern(asked) });
      if (asked !== wanted || signal.aborted) return;
      all.sort((a, b) => b.connections - a.connections || (a.channel < b.channel ? -1 : 1));
      sync(found.body, all.slice(0, CHANNELS_SHOWN), (it) => it.channel, channelRow, (line, it) => {
        write(line.children[1], count(it.users));
        write(line.children[2], count(it.connections));
      });
      const more = all.length > CHANNELS_SHOWN ? `, of which the ${CHANNELS_SHOWN} with most subscribers are shown` : '';
      write(said, all.length === 0 ? 'No channel of this name is heard by anybody.' : `${plural(all.length, 'channel')}${more}.`);
      open.hidden = !isChannel(asked) || asked.includes('*') || all.some((it) => it.channel === asked);
      if (!open.hidden) open.replaceChildren(link(places.channel(asked), `Open ${asked}`, { class: 'button' }));
    } catch (error) {
      write(said, error.message);
    }
  };
  const turn = again(ask, signal);
  const { form } = search('Search channels: part of a name, or room:*', wanted, (text, isSubmitted) => {
    if (isSubmitted && isChannel(text) && !text.includes('*')) go(places.channel(text));
    wanted = text;
    turn();
  });
  return [make('h1', { tabindex: '-1' }, 'Channels'), form, open, panel('Heard by somebody', said, found.whole,
    make('p', { class: 'hint' }, 'Channels of namespaces without presence are not listed; they open by their whole names.'))];
}

function channelRow({ channel }) {
  const line = row(CHANNELS);
  line.children[0].append(link(places.channel(channel), channel, { class: `tag ${hue(channel)}` }));
  return line;
}

/** What a search for a client asks: `user:ann`, `channel:room:1`, a session, or a user's whole name. */
function filterOf(text) {
  if (/^[0-9a-f]{32}$/.test(text)) return { session: text };
  const [, kind, name] = /^(user|channel):(.+)$/.exec(text) ?? [];
  if (kind === 'channel') return isChannel(name) ? { channel: name } : {};
  return text ? { user: name ?? text } : {};
}

export function clients({ api, signal, query, go }) {
  let filter = query.has('channel') ? { channel: query.get('channel') } : filterOf(query.get('user') ?? '');
  const pages = [undefined];
  const found = table('Clients', CLIENTS);
  const said = make('p', { class: 'detail', role: 'status' });
  const slowest = make('input', { type: 'checkbox', id: 'slowest' });
  const [back, next] = [make('button', { type: 'button', class: 'quiet' }, '← Back'), make('button', { type: 'button', class: 'quiet' }, 'More →')];
  let after;
  const ask = async () => {
    const [asked, at] = [filter, pages.at(-1)];
    try {
      const body = slowest.checked ? { ...asked, slowest: true, limit: CLIENTS_A_PAGE } : { ...asked, after: at, limit: CLIENTS_A_PAGE };
      const { connections: all, next: following, unanswered } = await api.call('connections', body);
      if (asked !== filter || at !== pages.at(-1) || signal.aborted) return;
      sync(found.body, all, (it) => it.session, clientRow, writeClient);
      after = following;
      [back.hidden, next.hidden] = [pages.length < 2, !following];
      const missing = unanswered.length > 0 ? ` No answer from ${unanswered.join(', ')}: what they hold is missing.` : '';
      write(said, `${all.length === 0 ? 'Nobody is there.' : `${plural(all.length, 'client')} on this page.`}${missing}`);
    } catch (error) {
      write(said, error.message);
    }
  };
  const turn = again(ask, signal);
  const restart = () => {
    pages.splice(1);
    turn();
  };
  slowest.addEventListener('change', restart);
  next.addEventListener('click', () => { pages.push(after); turn(); });
  back.addEventListener('click', () => { pages.pop(); turn(); });
  const shown = filter.channel ? `channel:${filter.channel}` : filter.user ?? '';
  const { form } = search('Search clients: a user, channel:room:1, or a session', shown, (text, isSubmitted) => {
    filter = filterOf(text);
    if (isSubmitted && filter.session) go(places.client(filter.session));
    restart();
  });
  form.append(make('label', { class: 'check', for: 'slowest' }, slowest, 'Slowest first'));
  [back.hidden, next.hidden] = [true, true];
  return [make('h1', { tabindex: '-1' }, 'Clients'), form, panel('Connected', said, found.whole, make('div', { class: 'pages' }, back, next))];
}

function clientRow({ session }) {
  const line = row(CLIENTS);
  line.children[0].append(link(places.client(session), short(session), { title: session }));
  return line;
}

function writeClient(line, it) {
  const cells = [it.user ?? 'anonymous', it.node, it.address, it.transport, it.protocol, since(it.connected), bytes(it.queued_bytes)];
  cells.forEach((text, at) => write(line.children[at + 1], text));
  line.children[1].classList.toggle('soft', it.user === null);
}
