/** Compiled, not run: what the types promise and forbid. */

import { Fanfare, FanfareError, type Gap, type Message } from 'fanfare-client';

interface Chat { text: string }

const fanfare = new Fanfare('https://example.org', { getToken: async () => 'token', transports: ['websocket', 'sse'] });
const room = fanfare.subscribe<Chat>('room:1', { presence: true, rewind: 10 });

room.on('message', (it: Message<Chat>) => it.data.text.length);
room.on('gap', (it: Gap) => it.cause === 'lost');
room.on('joined', ({ member }) => member.session.length);
fanfare.on('state', (state) => { if (state.name === 'waiting') state.waitMs.toFixed(); });

// @ts-expect-error: there is no such event
room.on('messages', () => {});
// @ts-expect-error: other data than the channel's
room.publish({ txt: 'hello' });
// @ts-expect-error: there is no such transport
new Fanfare('https://example.org', { transports: ['carrier pigeon'] });

export async function loop(): Promise<void> {
  for await (const event of room) {
    if (event.type === 'message') event.data.text.trim();
    else if (event.type === 'gap') event.cause.trim();
    else event.member.session.trim();
  }
  await room.publish({ text: 'hello' }, { key: null, echo: false }).catch((error: FanfareError) => error.isUncertain);
}
