/** A link over a WebSocket. See `http.js` for the other one; to the client they look alike. */

const SUBPROTOCOL = 'fanfare.v1.json';

export class SocketLink {
  /** Whether commands go where events come from. */
  isDuplex = true;
  /** Whether the server was heard over it: a network may refuse or swallow WebSockets. */
  isProven = false;

  #socket;

  /** `port` has `opened()`, `heard(events)` and `ended(close)`; after `close()` it is told nothing. */
  constructor(url, port, { WebSocket = globalThis.WebSocket }) {
    const socket = new WebSocket(url.replace(/^http/, 'ws') + '/ws', SUBPROTOCOL);
    socket.onopen = () => port.opened();
    socket.onmessage = (event) => {
      this.isProven = true;
      let events;
      try {
        events = [JSON.parse(event.data)].flat();
      } catch {
        // No gateway says this. Whatever is between may be gone the next time.
        this.close();
        port.ended({ code: 1006, reason: 'error' });
        return;
      }
      port.heard(events);
    };
    socket.onclose = ({ code, reason }) => port.ended({ code, reason });
    // Of a socket that never opened Node.js tells no close, and of others it says nothing more.
    socket.onerror = () => port.ended({ code: 1006, reason: 'error' });
    this.#socket = socket;
  }

  get bufferedBytes() {
    return this.#socket.bufferedAmount;
  }

  send(text) {
    this.#socket.send(text);
  }

  /** Does not wait for a closing handshake, which a dead peer never answers. */
  close() {
    const socket = this.#socket;
    // Without a listener for errors some implementations throw.
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = () => {};
    socket.close();
  }
}
