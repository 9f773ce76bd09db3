/** A link over a WebSocket. See `http.js` for the other one; to the client they look alike. */

const SUBPROTOCOL = 'fanfare.v1.json';

export class SocketLink {
  /** Whether commands go where events come from. */
  _isDuplex = true;
  /** Whether the server was heard over it: a network may refuse or swallow WebSockets. */
  _isProven = false;

  #socket;

  /** `port` has `_opened()`, `_heard(events)` and `_ended(close)`; after `_close()` it is told nothing. */
  constructor(url, port, { WebSocket = globalThis.WebSocket }) {
    const socket = new WebSocket(url.replace(/^http/, 'ws') + '/ws', SUBPROTOCOL);
    // Of a socket that never opened Node.js tells no close, and of others it says nothing more.
    const failed = () => {
      this._close();
      port._ended({ reason: 'error' });
    };
    socket.onopen = () => port._opened();
    socket.onmessage = ({ data }) => {
      this._isProven = true;
      let events;
      try {
        events = [JSON.parse(data)].flat();
      } catch {
        // No gateway says this. Whatever is between may be gone the next time.
        failed();
        return;
      }
      port._heard(events);
    };
    socket.onclose = (close) => port._ended(close);
    socket.onerror = failed;
    this.#socket = socket;
  }

  get _bufferedBytes() {
    return this.#socket.bufferedAmount;
  }

  _send(text) {
    this.#socket.send(text);
  }

  /** Does not wait for a closing handshake, which a dead peer never answers. */
  _close() {
    const socket = this.#socket;
    // Without a listener for errors some implementations throw.
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = () => {};
    socket.close();
  }
}
