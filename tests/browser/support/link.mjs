/** A link to the gateway that can be cut and mended: a TCP proxy that keeps its port. */

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Link {
  #target;
  #server;
  #port = 0;
  #sockets = new Set();
  /** Matches the beginning of what is hung up on. */
  refuses;

  /** `refuses` matches the beginning of what is hung up on, such as the request for a WebSocket. */
  constructor(url, { refuses } = {}) {
    this.refuses = refuses;
    const { hostname, port, protocol } = new URL(url);
    this.#target = { host: hostname, port: Number(port || (protocol === 'https:' ? 443 : 80)) };
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  async mend() {
    this.#server = createServer((near) => {
      const far = connect(this.#target);
      for (const [socket, other] of [[near, far], [far, near]]) {
        this.#sockets.add(socket);
        socket.on('error', () => other.destroy());
        socket.on('close', () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
      }
      far.pipe(near);
      near.on('data', (bytes) => {
        if (this.refuses?.test(bytes.toString('latin1'))) near.destroy();
        else far.write(bytes);
      });
      near.on('end', () => far.end());
    });
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = this.#server.address().port;
  }

  /** Ends every connection at once, without a WebSocket close, and refuses new ones until mended. */
  async cut() {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
