/** A server on a real socket that says what a test makes it say: what a gateway does once in a thousand years. */

import { once } from 'node:events';
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import { until } from './until.mjs';

export const LIMITS = { message_bytes: 65536, channels: 128, messages_per_second: 0 };

export class Peer {
  conversations = [];
  /** Whether an upgrade is answered at all. */
  refuses = false;
  #server;

  static async listen(t, { greets = true, ...welcome } = {}) {
    const peer = new Peer();
    const http = createServer((request, answer) => answer.writeHead(404).end());
    const sockets = new WebSocketServer({ noServer: true, handleProtocols: ([first]) => first });
    http.on('upgrade', (request, socket, head) => {
      if (peer.refuses) socket.destroy();
      else sockets.handleUpgrade(request, socket, head, (it) => peer.conversations.push(new Conversation(it, greets, welcome)));
    });
    peer.#server = http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    t.after(() => {
      for (const it of peer.conversations) it.socket.terminate();
      http.close();
    });
    return peer;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** The conversation of this number, from 1, once it has begun. */
  async conversation(number) {
    await until(() => this.conversations.length >= number, `connection ${number}`);
    return this.conversations[number - 1];
  }
}

class Conversation {
  socket;
  /** Frames as they came, parsed. */
  frames = [];

  constructor(socket, greets, welcome) {
    this.socket = socket;
    socket.on('message', (text) => this.frames.push(JSON.parse(text)));
    if (greets) this.welcome(welcome);
  }

  get commands() {
    return this.frames.flat();
  }

  welcome(more = {}) {
    this.say({ type: 'welcome', session: 's', node: 'peer', user: null, expires: null, heartbeat: 30, limits: LIMITS, channels: [], ...more });
  }

  say(...events) {
    for (const event of events) this.socket.send(JSON.stringify(event));
  }

  /** The command number `nth`, from 1, of that type, once it has come. */
  async command(type, nth = 1) {
    const those = () => this.commands.filter((it) => it.type === type);
    await until(() => those().length >= nth, `${type} ${nth}`);
    return those()[nth - 1];
  }

  /** Answers the subscription number `nth`. */
  async admit(nth = 1, more = { epoch: 'e', offset: 0, recovered: false }) {
    const { id, channel, since } = await this.command('subscribe', nth);
    this.say({ type: 'subscribed', id, channel, ...more });
    return since;
  }

  closing(more) {
    this.say({ type: 'closing', code: 1001, reason: 'going_away', message: 'bye', reconnect: true, after: 0, ...more });
    this.socket.close(more.code ?? 1001, more.reason ?? 'going_away');
  }
}
