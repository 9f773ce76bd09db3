/** Applications that speak other protocols, as they are, on the channel of one that speaks Fanfare's. */

import Echo from '/packages/laravel-echo/dist/echo.js';
import { Centrifuge } from '/packages/centrifuge/build/index.mjs';
import { Fanfare } from '/fanfare/index.js';

const SHOWN = 12;

function show(id, order) {
  const list = document.getElementById(id);
  const item = document.createElement('li');
  item.textContent = `order ${order.id} was shipped`;
  list.append(item);
  while (list.childElementCount > SHOWN) list.firstElementChild.remove();
}

function tell(id, state) {
  const element = document.getElementById(`${id}-state`);
  element.textContent = state;
  element.dataset.state = state;
}

const { gateway } = await (await fetch('/start')).json();
const { hostname, port, host } = new URL(gateway);

// Laravel's, over the Pusher protocol: the channel of its application.
const echo = new Echo({
  broadcaster: 'pusher', key: 'shop-key', cluster: 'unused', wsHost: hostname, wsPort: port, forceTLS: false, enabledTransports: ['ws'], disableStats: true,
});
echo.connector.pusher.connection.bind('state_change', ({ current }) => tell('echo', current));
echo.channel('orders').listen('.OrderShipped', (order) => show('echo', order));

// Centrifugo's.
const centrifuge = new Centrifuge(`ws://${host}/connection/websocket`);
const subscription = centrifuge.newSubscription('shop:orders');
subscription.on('publication', ({ data }) => show('centrifuge', data));
subscription.subscribe();
centrifuge.on('state', ({ newState }) => tell('centrifuge', newState));
centrifuge.connect();

// Fanfare's own.
const fanfare = new Fanfare(gateway);
fanfare.on('state', ({ name }) => tell('fanfare', name));
fanfare.subscribe('shop:orders').on('message', ({ data }) => show('fanfare', data));
