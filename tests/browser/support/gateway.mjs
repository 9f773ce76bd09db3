/** A gateway of a test's own, with settings of its own: the program of FANFARE_BIN. */

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const PROGRAM = process.env.FANFARE_BIN ?? new URL('../../../target/debug/fanfare', import.meta.url).pathname;

export class Gateway {
  #process;
  #secret;

  static async start(settings) {
    const gateway = new Gateway();
    gateway.#secret = settings.map((it) => it.match(/^auth\.jwt\.hmac_secret=(.*)$/)?.[1]).find(Boolean);
    const flags = ['log.format=json', ...settings].flatMap((it) => ['--set', it]);
    const address = ['--listen', '127.0.0.1:0', '--internal', '127.0.0.1:0'];
    gateway.#process = spawn(PROGRAM, [...address, ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
    const said = [];
    for await (const line of createInterface({ input: gateway.#process.stderr })) {
      said.push(line);
      const event = line.startsWith('{') ? JSON.parse(line) : {};
      if (event.message !== 'serving') continue;
      gateway.url = `http://${event.public}`;
      gateway.internal = `http://${event.internal}`;
      gateway.#process.stderr.resume();
      return gateway;
    }
    throw new Error(`the gateway does not start: ${said.join('\n')}`);
  }

  /** A token of this user, good for an hour unless `claims` say otherwise. */
  token(user, claims = {}) {
    return signed(this.#secret, { sub: user, exp: Math.floor(Date.now() / 1000) + 3600, ...claims });
  }

  async stop() {
    if (this.#process.exitCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await ended;
  }
}

/** A token with these claims, by HS256. */
export function signed(secret, claims) {
  const part = (it) => Buffer.from(JSON.stringify(it)).toString('base64url');
  const content = `${part({ alg: 'HS256' })}.${part(claims)}`;
  return `${content}.${createHmac('sha256', secret).update(content).digest('base64url')}`;
}
