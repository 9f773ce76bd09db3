/** Waits for a condition, in turns of the event loop: also where time is fake. Real time bounds it. */

const [realNow, realTimeout] = [performance.now.bind(performance), setTimeout];
const WAIT_MS = 30_000;

export async function until(condition, what = String(condition)) {
  const deadline = realNow() + WAIT_MS;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (realNow() > deadline) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => realTimeout(resolve, 2));
  }
}
