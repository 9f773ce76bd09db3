/** Machines that tell how busy they are, by the server API: many times a second, and now and then a thousand times at once. */

const HOSTS = ['alder', 'birch', 'cedar', 'elm', 'fir', 'hazel', 'oak', 'yew'];
const EVERY_MS = 100;

export async function feed({ internal }) {
  const values = new Map(HOSTS.map((host, at) => [host, 20 + at * 8]));
  let isOver = false;
  const publish = async () => {
    const commands = HOSTS.map((host) => {
      const value = Math.min(100, Math.max(0, values.get(host) + (Math.random() - 0.5) * 9));
      values.set(host, value);
      return { method: 'publish', channel: `load:${host}`, data: Math.round(value * 10) / 10 };
    });
    const answer = await fetch(`${internal}/api/batch`, { method: 'POST', body: JSON.stringify({ commands }) });
    if (!answer.ok) console.error(`the gateway answered ${answer.status}`);
  };
  const turn = async () => {
    while (!isOver) {
      await publish().catch((error) => isOver || console.error(error.message));
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  };
  const running = turn();
  return async () => {
    isOver = true;
    await running;
  };
}
