// What a team writes first: a map of sets, one stringify per publication, `send` to each. Compression off, native
// masking on (bufferutil). With $REDIS_PORT, publications go through Redis, one of its channels per channel.
'use strict';
const { WebSocketServer } = require('ws');

const subscribers = new Map();

function deliver(channel, text) {
  // The same bytes for everybody: `ws` frames a Buffer without copying it.
  const bytes = Buffer.from(text);
  for (const socket of subscribers.get(channel) ?? []) {
    socket.send(bytes, { binary: false });
  }
}

let publish = deliver;
let watch = () => Promise.resolve();
if (process.env.REDIS_PORT) {
  const Redis = require('ioredis');
  const port = Number(process.env.REDIS_PORT);
  const [to, from] = [new Redis(port), new Redis(port)];
  publish = (channel, text) => to.publish(channel, text);
  watch = (channel) => from.subscribe(channel);
  from.on('message', deliver);
}

const server = new WebSocketServer({
  host: '127.0.0.1', port: Number(process.env.PORT), backlog: 4096, perMessageDeflate: false,
});
server.on('connection', (socket) => {
  let joined = null;
  socket.on('message', async (bytes) => {
    const command = JSON.parse(bytes);
    if (command.subscribe !== undefined) {
      const channel = command.subscribe;
      let set = subscribers.get(channel);
      if (set === undefined) {
        subscribers.set(channel, set = new Set());
        set.watched = watch(channel);
      }
      set.add(socket);
      joined = channel;
      await set.watched;
      socket.send(JSON.stringify({ subscribed: channel }));
    } else {
      publish(command.publish, JSON.stringify({ channel: command.publish, data: command.data }));
    }
  });
  socket.on('close', () => {
    const set = subscribers.get(joined);
    if (set?.delete(socket) && set.size === 0) subscribers.delete(joined);
  });
  socket.on('error', () => {});
});
