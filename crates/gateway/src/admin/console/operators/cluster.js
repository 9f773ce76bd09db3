/**
 * What the nodes say of themselves, and the last five minutes of it. Each node says it every two seconds on a channel, heard over the
 * node's own protocol. Until that has told of all of them, and whenever it does not tell of the node that this page is of, that one is asked
 * by the server API: it knows itself even with no link to the others. A tab that nobody looks at looks more seldom; what it has is kept.
 */

/** Where nodes say how they are. */
const FIGURES = '$fanfare:figures';
/** How long after its last word a node is taken for gone. */
const SILENCE_MS = 7_000;
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
  /** Whether the figures come by themselves. */
  isTold = false;
  #api;
  #live;
  #timer;
  /** Ends the hearing. */
  #deafen;
  /** Node → what it said last, and when. */
  #said = new Map();
  /** Since when all that is said has been heard. */
  #hearsSince = Infinity;

  constructor(api, live) {
    super();
    this.#api = api;
    this.#live = live;
  }

  start() {
    this.stop();
    this.#deafen = this.#live.hear(FIGURES, {
      message: ({ data }) => this.#said.set(data.node, { facts: data, at: performance.now() }),
      state: (known) => {
        if (known?.state !== 'joined') this.#deaf();
        else if (this.#hearsSince === Infinity) this.#hearsSince = performance.now();
      },
      trouble: () => {},
    });
    this.#look();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#deafen?.();
    this.#deafen = undefined;
  }

  /** What was said before is no news. */
  #deaf() {
    this.#hearsSince = Infinity;
    this.#said.clear();
  }

  /** All nodes, where they have been heard for long enough; undefined where one has to be asked. */
  #told() {
    const now = performance.now();
    const isWhole = this.nodes.length > 0 && this.nodes.every(({ node }) => this.#said.has(node));
    if (this.#hearsSince === Infinity || (now - this.#hearsSince < SILENCE_MS && !isWhole)) return undefined;
    for (const [node, { at }] of this.#said) if (now - at > SILENCE_MS) this.#said.delete(node);
    if (!this.#said.has(this.#live.state.node)) return undefined;
    return [...this.#said.values()].map((it) => it.facts).sort((a, b) => (a.node < b.node ? -1 : 1));
  }

  async #look() {
    try {
      const told = this.#told();
      this.isTold = told !== undefined;
      const nodes = told ?? (await this.#api.call('nodes')).nodes;
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
