/** Nodes, Redis and nginx, started by scripts/cluster in a directory of this test's own. FANFARE_BIN is the program of the nodes. */

import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const SCRIPT = new URL('../../../../scripts/cluster', import.meta.url).pathname;
const PROGRAM = process.env.FANFARE_BIN ?? new URL('../../../../target/debug/fanfare', import.meta.url).pathname;
const run = promisify(execFile);

export class Cluster {
  url;
  /** The public and the internal listeners of the nodes, in their order. */
  publics;
  internals;
  redis;
  #directory;
  /** Settings of the nodes, also of those that are started again. */
  #env;

  static async up({ nodes = 2, drainSeconds = 1, ...env } = {}) {
    const cluster = new Cluster();
    cluster.#env = env;
    cluster.#directory = await mkdtemp(join(tmpdir(), 'fanfare-client-'));
    const flags = ['--binary', PROGRAM, '--no-prometheus', '--nodes', String(nodes), '--drain', String(drainSeconds)];
    await cluster.#do(['up', ...flags]);
    const { stdout } = await cluster.#do(['env']);
    cluster.url = stdout.match(/^CLUSTER_URL=(.*)$/m)[1];
    cluster.publics = [...stdout.matchAll(/^CLUSTER_NODE_\d+_URL=(.*)$/gm)].map((it) => it[1]);
    cluster.internals = [...stdout.matchAll(/^CLUSTER_NODE_\d+_INTERNAL=(.*)$/gm)].map((it) => it[1]);
    cluster.redis = stdout.match(/^CLUSTER_REDIS=(.*)$/m)[1];
    return cluster;
  }

  /** Nodes are named as welcomes name them: `node-1`. */
  kill(node) {
    return this.#do(['kill-node', node.slice('node-'.length)]);
  }

  /** Drains it, or starts it where it was killed. */
  restart(node) {
    return this.#do(['restart-node', node.slice('node-'.length)]);
  }

  /** Redis forgets everything: streams, positions, keys. */
  forget() {
    return run('redis-cli', ['-u', this.redis, 'flushall']);
  }

  async down() {
    await this.#do(['down']);
    await rm(this.#directory, { recursive: true, force: true });
  }

  #do(command) {
    return run(SCRIPT, command, { env: { ...process.env, ...this.#env, CLUSTER_DIR: this.#directory } });
  }
}
