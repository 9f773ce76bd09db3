/** What happens to one channel or one user on all nodes, as they tell it: the server API's trace, step by step and publication by publication. */

import { link, make, panel, sync, write } from './dom.js';
import { Log } from './log.js';
import { Ways } from './ways.js';
import { bytes, count, isChannel, millis, places, plural, short, trace as traceOf } from './words.js';

/** Before a stream that has broken off is opened again. */
const AGAIN_MS = 1_000;

const GROUPS = [['clients', 'Clients'], ['publications', 'Publications'], ['deliveries', 'Deliveries'], ['refusals', 'Refusals']];

const who = ({ session, user }) => (session ? link(places.client(session), user ?? short(session), { class: 'name' }) : user ?? 'the API');
const kept = ({ offset }) => offset !== undefined && `#${offset}`;
const why = ({ code, reason }) => (code === undefined ? '' : `: ${code} ${reason ?? ''}`);

/** Type → what it is called, its group, how it is told, and what is marked beside it. */
const STEPS = {
  connected: ['connected', 'clients', (it) => [who(it), ` from ${it.address}, by ${it.transport}, ${it.protocol}`]],
  disconnected: ['disconnected', 'clients', (it) => [who(it), why(it)]],
  subscribed: ['subscribed', 'clients', (it) => [who(it), it.recovered === undefined ? '' : it.recovered ? ', and misses nothing' : ', and has missed something', it.replayed ? '; some of the past follows' : ''], (it) => [kept(it) && `at ${kept(it)}`]],
  unsubscribed: ['unsubscribed', 'clients', (it) => [who(it), why(it)]],
  hook: ['asked', 'clients', (it) => [`the backend, about ${it.hook}`, it.session || it.user ? ' of ' : '', it.session || it.user ? who(it) : '', `: ${it.outcome}`], (it) => [millis(it.ms)]],
  published: ['published', 'publications', (it) => ['by ', it.by === 'api' ? 'the API' : who(it)], (it) => [kept(it), bytes(it.bytes), `broker ${millis(it.ms)}`]],
  heard: ['heard', 'publications', (it) => ['from the broker', it.user ? `, of ${it.user}` : ''], (it) => [kept(it), millis(it.ms)]],
  fanned_out: ['fanned out', 'publications', (it) => [`${plural(it.count, 'publication')} to ${plural(it.receivers, 'subscriber')}`]],
  queued: ['queued', 'deliveries', (it) => ['for ', who(it), it.replayed ? ', out of the past' : ''], (it) => [kept(it), `${bytes(it.waiting_bytes)} waiting`]],
  written: ['written', 'deliveries', (it) => ['to ', who(it), it.replayed ? ', out of the past' : ''], (it) => [kept(it), millis(it.ms)]],
  dropped: ['dropped', 'deliveries', (it) => ['for ', who(it), `: ${it.policy === 'disconnect' ? 'its queue is full, and it is disconnected' : it.policy}`], (it) => [kept(it), it.count > 1 && `${count(it.count)} of them`]],
  refused: ['refused', 'refusals', (it) => [who(it), why(it), it.message ? ` (${it.message})` : '']],
};
const BAD = new Set(['refused', 'dropped']);

/** With thousandths: steps follow each other closely. */
function moment(at) {
  const date = new Date(at);
  return `${date.toTimeString().slice(0, 8)}.${String(Math.floor(at % 1_000)).padStart(3, '0')}`;
}

function stepItem(event, isUsers) {
  const [name, group, told, marked = () => []] = STEPS[event.type] ?? [event.type, 'clients', ({ type: _, at: __, node: ___, ...rest }) => [JSON.stringify(rest)]];
  const marks = [isUsers && event.channel, ...marked(event)].filter(Boolean).map((text) => make('span', { class: 'mark' }, text));
  return make('li', { class: 'entry step', data: { group, ...(event.trace && { trace: event.trace }), ...(BAD.has(event.type) && { level: 'bad' }) } },
    make('time', { class: 'at', datetime: new Date(event.at).toISOString() }, moment(event.at)),
    make('span', { class: 'where' }, event.node),
    make('span', { class: 'kind' }, name),
    make('span', { class: 'body' }, ...told(event)),
    make('span', { class: 'marks' }, ...marks),
    event.payload !== undefined && make('span', { class: 'json body' }, typeof event.payload === 'string' ? event.payload : JSON.stringify(event.payload), event.truncated && '…'));
}

export function trace({ api, signal, query, go }) {
  const of = ['channel', 'user'].find((it) => query.get(it));
  const name = of && query.get(of);
  const view = [make('h1', { tabindex: '-1' }, 'Trace'), search(api, go, of, name, query.has('payload'))];
  if (!of) return [...view, make('p', { class: 'hint' }, 'What happens to one channel or one user is told by all nodes as it happens: who comes and goes, what is published, when each node hears it and when each socket has taken it. It ends by itself after ten minutes.')];
  return [...view, ...following(api, signal, { of, name, hasPayload: query.has('payload') })];
}

function search(api, go, of, name, hasPayload) {
  const kind = make('select', { 'aria-label': 'What is traced' },
    make('option', { value: 'channel', selected: of === 'channel' }, 'Channel'), api.seesCluster && make('option', { value: 'user', selected: of === 'user' }, 'User'));
  const input = make('input', { type: 'search', id: 'search', 'aria-label': 'Name of the channel or user', placeholder: 'room:1', value: name ?? '', required: true, maxlength: '255', spellcheck: 'false', autocapitalize: 'off' });
  const payload = make('input', { type: 'checkbox', id: 'payload', checked: hasPayload });
  const wrong = make('p', { class: 'wrong', role: 'alert' });
  return make('form', {
    class: 'row', role: 'search',
    onsubmit: (event) => {
      event.preventDefault();
      const wanted = input.value.trim();
      const isGood = kind.value === 'user' || isChannel(wanted);
      write(wrong, isGood ? '' : 'A channel has 1 to 255 printable ASCII characters, none of them a space.');
      if (isGood) go(traceOf(kind.value, wanted, payload.checked));
    },
  }, kind, input, make('label', { class: 'check', for: 'payload' }, payload, 'With what is said'), make('button', { type: 'submit' }, 'Trace'), wrong);
}

function following(api, signal, { of, name, hasPayload }) {
  const log = new Log({ empty: 'Nothing has happened yet.', kept: 400, counted: 'steps', newer: 'Newer steps' });
  const ways = new Ways((chosen) => log.element.querySelectorAll('.step').forEach((it) => it.classList.toggle('chosen', it.dataset.trace === chosen)));
  const standing = make('span', { class: 'pill', role: 'status', data: { state: 'connecting' } }, 'Opening…');
  const nodes = make('ul', { class: 'tracing', 'aria-label': 'Nodes that are traced' });
  const toggle = make('button', { type: 'button', class: 'quiet' }, 'Stop');
  const known = new Map();
  let stopping;
  const show = (state, text) => {
    standing.dataset.state = state;
    write(standing, text);
    write(toggle, stopping ? 'Stop' : 'Go on');
  };
  const showNodes = () => sync(nodes, [...known].sort(), ([node]) => node, ([node]) => make('li', { class: 'pill' }, node), (item, [, state]) => { item.dataset.state = state; });
  const take = (event) => {
    const { type, node } = event;
    if (type === 'alive') return;
    if (type === 'tracing') {
      event.nodes.forEach((it) => known.set(it, 'connecting'));
      show('open', 'Tracing');
    } else if (type === 'watching') known.set(node, 'open');
    else if (type === 'silent') {
      known.set(node, 'stopped');
      log.note(`${node} is not heard any more.`, 'bad');
    } else if (type === 'left_out') log.note(`${node} has left out ${plural(event.count, 'step')}: there are too many to tell.`, 'bad');
    else if (type === 'over') log.note(event.reason === 'stopping' ? 'The node that told it is stopping.' : 'The time of this trace is over.');
    else {
      log.add(() => {
        const item = stepItem(event, of === 'user');
        item.classList.toggle('chosen', event.trace !== undefined && event.trace === ways.chosen);
        return item;
      });
      ways.take(event);
    }
    showNodes();
    return event;
  };
  const run = async () => {
    stopping = new AbortController();
    const { signal: mine } = stopping;
    const asked = new URLSearchParams({ [of]: name, ...(hasPayload && { payload: 'true' }) });
    let last;
    while (!mine.aborted) {
      show('connecting', 'Opening…');
      try {
        await api.lines(`trace?${asked}`, (event) => { last = take(event) ?? last; }, mine);
        if (last?.type === 'over' && last.reason !== 'stopping') break;
      } catch (error) {
        if (mine.aborted) break;
        log.note(`${error.message}.`, 'bad');
        if (error.status >= 400 && error.status !== 503) break;
      }
      known.clear();
      showNodes();
      if (!mine.aborted) show('waiting', 'Broken off');
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
    if (stopping?.signal === mine) stopping = undefined;
    if (!stopping) show('stopped', 'Not tracing');
  };
  toggle.addEventListener('click', () => {
    if (!stopping) {
      run();
      return;
    }
    stopping.abort();
    stopping = undefined;
    known.clear();
    showNodes();
    show('stopped', 'Not tracing');
  });
  signal.addEventListener('abort', () => stopping?.abort());
  run();
  const shown = make('div', { class: 'shown', role: 'group', 'aria-label': 'What is shown' }, ...GROUPS.map(([group, label]) => make('label', { class: 'check' },
    make('input', { type: 'checkbox', checked: true, onchange: ({ target }) => log.change(() => log.element.classList.toggle(`hides-${group}`, !target.checked)) }), label)));
  const steps = panel('Steps', make('div', { class: 'heading' }, standing, toggle), nodes, shown, log.element);
  return [make('div', { class: 'room' }, steps, ways.element)];
}
