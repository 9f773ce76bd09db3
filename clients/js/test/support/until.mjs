/** Waits for a condition, in turns of the event loop: also where time is fake. Real time bounds it. */

const [realNow, realTimeout, realClear] = [performance.now.bind(performance), setTimeout, clearTimeout];
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

/** What a promise resolves to, which a mistake might leave open for ever. */
export async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = realTimeout(() => reject(new Error(`waited in vain for ${what}`)), WAIT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    realClear(timer);
  }
}
