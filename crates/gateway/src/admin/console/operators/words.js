/** How numbers, times and names are written on this page, and what its addresses are. */

const whole = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export const count = (n) => (n >= 1_000_000 ? compact : whole).format(n ?? 0);
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export function rate(n = 0) {
  return n < 10 ? String(Math.round(n * 10) / 10) : count(Math.round(n));
}

/** Milliseconds, with three digits that matter. */
export function millis(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms >= 10_000) return `${Math.round(ms / 1_000)} s`;
  if (ms >= 1_000) return `${(ms / 1_000).toFixed(1)} s`;
  return `${ms < 1 ? ms.toFixed(2) : ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

export function bytes(n = 0) {
  let size = n;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (size < 1_024) return `${unit === 'B' || size >= 100 ? Math.round(size) : size.toFixed(1)} ${unit}`;
    size /= 1_024;
  }
  return `${size.toFixed(1)} TiB`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} days`;
}

const two = (n) => String(n).padStart(2, '0');
export const clock = (date) => `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
export const since = (ms) => duration((Date.now() - ms) / 1_000);

/** The beginning of a session's id: enough to tell it from others by eye. */
export const short = (session) => `${session.slice(0, 8)}…`;

/** Text as it is; any other payload as JSON. */
export const payload = (data) => (typeof data === 'string' ? data : JSON.stringify(data));

/** What a person typed: JSON if it is, otherwise text. */
export function typed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A word without `*` is looked for anywhere in a name. */
export const pattern = (text) => (text === '' ? '*' : text.includes('*') ? text : `*${text}*`);

export const isChannel = (name) => /^[!-~]{1,255}$/.test(name);

/** The addresses of the views. */
export const places = {
  overview: '#/',
  channels: '#/channels',
  clients: '#/clients',
  channel: (name) => `#/channel/${encodeURIComponent(name)}`,
  client: (session) => `#/client/${encodeURIComponent(session)}`,
  trace: '#/trace',
  clientsOf: (kind, name) => `#/clients?${new URLSearchParams({ [kind]: name })}`,
};

/** The address of what traces a channel or a user. */
export const trace = (of, name, hasPayload = false) => `#/trace?${new URLSearchParams({ [of]: name, ...(hasPayload && { payload: '1' }) })}`;
