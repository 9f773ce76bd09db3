/** Clients that are there and talk, so that there is something to see: those of `ws`, which know nothing of the page. */

import { once } from 'node:events';
import WebSocket from 'ws';

export class Crowd {
  #sockets = [];
  #timers = [];

  /** A client of a gateway, let in with `token` if there is one, that hears `channels`. Resolves to its `welcome`. */
  async join(url, { token, channels = [], presence = false } = {}) {
    const protocols = ['fanfare.v1.json', ...(token ? [`bearer.${token}`] : [])];
    const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws`, protocols);
    this.#sockets.push(socket);
    socket.on('error', () => {});
    const welcome = new Promise((resolve, reject) => {
      let missing = channels.length;
      let told;
      socket.on('close', (code) => reject(new Error(`closed with ${code}`)));
      socket.on('message', (text) => {
        for (const event of [JSON.parse(text)].flat()) {
          if (event.type === 'error') reject(new Error(JSON.stringify(event)));
          if (event.type === 'welcome') {
            told = event;
            channels.forEach((channel) => socket.send(JSON.stringify({ type: 'subscribe', channel, presence })));
          }
          if (event.type === 'subscribed') missing -= 1;
          if (told && missing === 0) resolve(told);
        }
      });
    });
    const { session, node, user } = await welcome;
    const ended = once(socket, 'close').then(([code]) => code);
    return {
      session, node, user, ended,
      say: (channel, data) => socket.send(JSON.stringify({ type: 'publish', channel, data })),
      pause: () => socket._socket.pause(),
      leave: () => socket.close(1000),
    };
  }

  /** Has `act` done again and again, until the crowd goes. */
  every(ms, act) {
    this.#timers.push(setInterval(act, ms));
  }

  leave() {
    this.#timers.forEach(clearInterval);
    this.#sockets.forEach((it) => it.terminate());
  }
}
