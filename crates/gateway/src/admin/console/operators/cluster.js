/**
 * What the nodes say of themselves, asked every two seconds, and the last five minutes of it. A tab that nobody looks at asks more
 * seldom; what it has is kept.
 */

const EVERY_MS = 2_000;
const EVERY_HIDDEN_MS = 10_000;
const KEPT = 150;
/** A node that was there and is not any more is remembered for this long. */
const MISSED_FOR_MS = 10 * 60_000;

const sum = (nodes, field) => nodes.reduce((all, node) => all + (node[field] ?? 0), 0);

function slowest(nodes, field) {
  const known = nodes.map((node) => node[field]).filter((it) => it !== null && it !== undefined);
  return known.length > 0 ? Math.max(...known) : null;
}

export class Cluster extends EventTarget {
  nodes = [];
  /** Of all nodes together, oldest first. */
  past = [];
  /** Node → its own past. */
  pastOf = new Map();
  /** Node → when it was last seen, of those that are gone. */
  gone = new Map();
  /** Why there is no news. */
  trouble;
  #api;
  #timer;

  constructor(api) {
    super();
    this.#api = api;
  }

  start() {
    this.stop();
    this.#look();
  }

  stop() {
    clearTimeout(this.#timer);
  }

  async #look() {
    try {
      const { nodes } = await this.#api.call('nodes');
      this.#took(nodes, Date.now());
      this.trouble = undefined;
    } catch (error) {
      this.trouble = error;
    }
    this.dispatchEvent(new Event('change'));
    if (this.trouble?.status !== 401) this.#timer = setTimeout(() => this.#look(), document.hidden ? EVERY_HIDDEN_MS : EVERY_MS);
  }

  #took(nodes, at) {
    const names = new Set(nodes.map((it) => it.node));
    for (const { node, draining } of this.nodes) {
      // One that was draining went because it was told to.
      if (!names.has(node) && !draining) this.gone.set(node, at);
    }
    for (const [name, seen] of this.gone) if (names.has(name) || at - seen > MISSED_FOR_MS) this.gone.delete(name);
    this.nodes = nodes;
    keep(this.past, sample(nodes, at));
    for (const node of nodes) {
      if (!this.pastOf.has(node.node)) this.pastOf.set(node.node, []);
      keep(this.pastOf.get(node.node), sample([node], at));
    }
    for (const name of this.pastOf.keys()) if (!names.has(name)) this.pastOf.delete(name);
  }
}

/** One moment of some nodes. The ages of two nodes do not add up: the worst counts. */
function sample(nodes, at) {
  return {
    at,
    connections: sum(nodes, 'connections'),
    in: sum(nodes, 'messages_received_per_second'),
    out: sum(nodes, 'messages_sent_per_second'),
    p50: slowest(nodes, 'publish_to_write_p50_ms'),
    p99: slowest(nodes, 'publish_to_write_p99_ms'),
  };
}

function keep(past, one) {
  past.push(one);
  if (past.length > KEPT) past.shift();
}
