/** A backend: an order is shipped every second. */

export async function feed({ internal }) {
  let id = 0;
  const timer = setInterval(async () => {
    id += 1;
    const body = JSON.stringify({ channel: 'shop:orders', label: 'OrderShipped', data: { id } });
    await fetch(`${internal}/api/publish`, { method: 'POST', body }).catch((error) => console.error(error.message));
  }, 1_000);
  return async () => clearInterval(timer);
}
