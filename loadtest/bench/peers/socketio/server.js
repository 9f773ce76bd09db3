// Rooms as channels. The WebSocket transport alone, no compression, and the request dropped once it has served, as
// the project's guide to memory usage has it.
'use strict';
const { createServer } = require('node:http');
const { Server } = require('socket.io');

const http = createServer();
const io = new Server(http, { transports: ['websocket'], perMessageDeflate: false, serveClient: false });
if (process.env.REDIS_PORT) {
  const { createAdapter } = require('@socket.io/redis-adapter');
  const Redis = require('ioredis');
  const port = Number(process.env.REDIS_PORT);
  io.adapter(createAdapter(new Redis(port), new Redis(port)));
}
io.engine.on('connection', (raw) => { raw.request = null; });
io.on('connection', (socket) => {
  socket.on('subscribe', async (channel, acknowledge) => {
    await socket.join(channel);
    acknowledge();
  });
  socket.on('publish', (channel, data) => io.to(channel).emit('m', data));
});
http.listen({ host: '127.0.0.1', port: Number(process.env.PORT), backlog: 4096 });
