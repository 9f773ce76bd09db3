/**
 * The least of a client that speaks `fanfare.v1.msgpack`, for browsers and Node.js: it comes back by itself, with full jitter, and subscribes
 * again. What is published on its channels is worth nothing later, so nothing is recovered.
 */

const SUBPROTOCOL = 'fanfare.v1.msgpack';
const BASE_MS = 500;
const MAX_MS = 10_000;

export class Packed {
  #url;
  #codec;
  #token;
  #onmessage;
  #onstate;
  #channels = new Set();
  #socket;
  #attempt = 0;
  #timer;

  /** `codec` is `{ encode, decode }` of @msgpack/msgpack. */
  constructor(url, { codec, token, onmessage = () => {}, onstate = () => {} }) {
    this.#url = `${url.replace(/^http/, 'ws')}/ws`;
    this.#codec = codec;
    this.#token = token;
    this.#onmessage = onmessage;
    this.#onstate = onstate;
    this.#connect();
  }

  subscribe(channel) {
    this.#channels.add(channel);
    this.#say({ type: 'subscribe', channel });
  }

  /** Whether it was said: without a connection it is not, and by the next it would be old. */
  publish(channel, data) {
    return this.#say({ type: 'publish', channel, data });
  }

  close() {
    clearTimeout(this.#timer);
    this.#socket.onclose = null;
    this.#socket.close();
  }

  #say(command) {
    if (this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(this.#codec.encode(command));
    return true;
  }

  #connect() {
    this.#onstate('connecting');
    const socket = new WebSocket(this.#url, this.#token ? [SUBPROTOCOL, `bearer.${this.#token}`] : [SUBPROTOCOL]);
    socket.binaryType = 'arraybuffer';
    socket.onmessage = ({ data }) => [this.#codec.decode(new Uint8Array(data))].flat().forEach((event) => this.#hear(event));
    let after;
    this.#hear = (event) => {
      if (event.type === 'welcome') {
        this.#attempt = 0;
        this.#onstate('connected');
        this.#channels.forEach((channel) => this.#say({ type: 'subscribe', channel }));
      } else if (event.type === 'closing') {
        after = event.reconnect ? event.after : Infinity;
      } else if (event.type === 'message') {
        this.#onmessage(event);
      }
    };
    socket.onclose = () => {
      this.#onstate('waiting');
      const wait = after ?? Math.random() * Math.min(MAX_MS, BASE_MS * 2 ** this.#attempt);
      this.#attempt += 1;
      if (wait !== Infinity) this.#timer = setTimeout(() => this.#connect(), wait);
    };
    this.#socket = socket;
  }

  #hear = () => {};
}
