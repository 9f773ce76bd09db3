/**
 * The operators' console: which view is shown, who looks at it, and in which light. Views are functions that make their elements and keep
 * them true until their `signal` says that they have been left.
 */

import { Api } from './api.js';
import { channel } from './channel.js';
import { client } from './client.js';
import { Cluster } from './cluster.js';
import { $, make, write } from './dom.js';
import { channels, clients } from './lists.js';
import { Live } from './live.js';
import { overview } from './overview.js';
import { trace } from './trace.js';
import { places } from './words.js';

const THEME = 'fanfare.theme';

const api = new Api();
const live = new Live(api);
const cluster = new Cluster(api, live);
let leaving = new AbortController();
/** Whether the next view is gone to for its search. */
let isSearching = false;

// Which view.

const go = (place) => { location.hash = place; };

/** The view of an address, its place in the menu and its title. */
function route(hash) {
  const [path, query] = hash.replace(/^#\/?/, '').split('?');
  const at = path.indexOf('/');
  const [kind, name] = at < 0 ? [path, ''] : [path.slice(0, at), decoded(path.slice(at + 1))];
  const asked = new URLSearchParams(query);
  if (kind === 'channel' && name) return { view: channel, menu: 'channels', title: name, name };
  if (kind === 'client' && name && api.seesCluster) return { view: client, menu: 'clients', title: 'Client', session: name };
  if (kind === 'trace' && api.can('admin')) return { view: trace, menu: 'trace', title: 'Trace', query: asked };
  if (kind === 'clients' && api.seesCluster) return { view: clients, menu: 'clients', title: 'Clients', query: asked };
  if (kind === 'channels' || !api.seesCluster) return { view: channels, menu: 'channels', title: 'Channels', query: asked };
  return { view: overview, menu: 'overview', title: 'Overview' };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  leaving.abort();
  leaving = new AbortController();
  const { view, menu, title, ...rest } = route(location.hash);
  $('main').replaceChildren(...view({ api, cluster, live, go, signal: leaving.signal, ...rest }).filter(Boolean));
  for (const it of document.querySelectorAll('#menu a')) {
    if (it.dataset.menu === menu) it.setAttribute('aria-current', 'page');
    else it.removeAttribute('aria-current');
  }
  document.title = `${title} · Fanfare`;
}

window.addEventListener('hashchange', () => {
  if (!api.rights) return;
  show();
  window.scrollTo(0, 0);
  // A screen reader goes on at the top of the new view; who clicked sees no ring.
  const start = isSearching ? $('search') : $('main').querySelector('h1');
  isSearching = false;
  start?.focus({ preventScroll: true });
});

// Who looks.

function opened() {
  const { caller, channels: limited } = api.rights;
  const scope = api.can('admin') ? 'admin' : [api.can('read') && 'read', api.can('publish') && 'publish'].filter(Boolean).join(' and ');
  write($('rights'), `${caller ? `${caller}: ` : ''}${scope === 'read' ? 'read only' : scope}${limited ? `, on ${limited.join(' ')}` : ''}`);
  $('leave').hidden = !api.key;
  $('menu').hidden = false;
  for (const it of document.querySelectorAll('#menu [data-cluster]')) it.hidden = !api.seesCluster;
  $('menu').querySelector('[data-menu="channels"]').hidden = !api.can('read');
  $('menu').querySelector('[data-menu="trace"]').hidden = !api.can('admin');
  if (api.seesCluster) cluster.start();
  show();
}

/** Asks for a key. `why` is what was wrong with the last one. */
function askForKey(why) {
  leaving.abort();
  cluster.stop();
  $('menu').hidden = true;
  $('leave').hidden = true;
  write($('rights'), '');
  const key = make('input', { type: 'password', id: 'key', autocomplete: 'off', required: true, 'aria-describedby': 'key-hint' });
  const wrong = make('p', { class: 'wrong', role: 'alert' }, why ?? '');
  const form = make('form', {
    class: 'panel door',
    onsubmit: async (event) => {
      event.preventDefault();
      await open(key.value);
    },
  },
  make('h1', { tabindex: '-1' }, 'Whose console?'),
  make('label', { for: 'key' }, 'A key of the server API'), make('div', { class: 'row' }, key, make('button', { type: 'submit' }, 'Open')), wrong,
  make('p', { class: 'hint', id: 'key-hint' }, 'One of api.keys, or of a caller with the scope read or admin. It stays in this tab, and what it does not allow is not offered.'));
  $('main').replaceChildren(form);
  document.title = 'Fanfare';
  key.focus();
}

async function open(key) {
  try {
    await api.open(key);
    opened();
  } catch (error) {
    const isKnown = error.status === 401 && !key;
    askForKey(isKnown ? undefined : error.status === 401 ? 'There is no such key.' : `${error.message}.`);
  }
}

api.addEventListener('unauthorized', () => {
  // Of a key that was good: it has been taken out of the configuration.
  if (!api.rights) return;
  api.close();
  askForKey('The key is not good any more.');
});

$('leave').addEventListener('click', () => {
  api.close();
  // What the old key has opened ends with the page.
  location.reload();
});

// Whether there is news.

function showState() {
  const [state, text] = cluster.trouble ? ['waiting', 'No news'] : ['open', cluster.isTold ? 'Live' : 'Asking'];
  $('state').dataset.state = state;
  write($('state'), text);
  $('state').hidden = !api.rights || !api.seesCluster;
}
cluster.addEventListener('change', showState);

// In which light.

const LIGHTS = ['auto', 'light', 'dark'];

function light(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  const label = { auto: 'as the system', light: 'light', dark: 'dark' }[name];
  $('theme').setAttribute('aria-label', `Colours: ${label}`);
  $('theme').title = `Colours: ${label}`;
  $('theme').dataset.theme = name;
}

$('theme').addEventListener('click', () => {
  const next = LIGHTS[(LIGHTS.indexOf($('theme').dataset.theme) + 1) % LIGHTS.length];
  localStorage.setItem(THEME, next);
  light(next);
});

// By keyboard.

const KEYS = { o: places.overview, c: places.channels, l: places.clients, t: places.trace };

window.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !api.rights || event.target.closest('input, textarea, select, dialog')) return;
  if (event.key === '/') {
    event.preventDefault();
    isSearching = !$('search');
    // At once: what is typed next belongs there.
    if (isSearching) go(places.channels);
    else $('search').focus();
  } else if (KEYS[event.key]) {
    go(KEYS[event.key]);
  }
});

const kept = localStorage.getItem(THEME);
light(LIGHTS.includes(kept) ? kept : 'auto');
showState();
open();
