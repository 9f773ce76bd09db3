/** A client that writes down what it hears on one channel, and what it is told of the way there. */

import assert from 'node:assert/strict';
import { Fanfare } from './client.mjs';
import { until } from './until.mjs';

export class Listener {
  heard = [];
  gaps = [];
  /** Names of the states, `waiting` with why. */
  states = [];
  fanfare;
  room;

  constructor(url, channel, options = {}, subscription = {}) {
    this.fanfare = new Fanfare(url, { backoff: { baseMs: 100, maxMs: 1000 }, ...options });
    this.fanfare.on('state', ({ name, transport }) => this.states.push(name === 'connected' ? transport : name));
    this.room = this.fanfare.subscribe(channel, subscription);
    this.room.on('message', ({ data }) => this.heard.push(data));
    this.room.on('gap', (gap) => this.gaps.push(gap.cause));
  }

  async ready() {
    await until(() => this.room.state === 'subscribed' && this.fanfare.state.name === 'connected', 'the subscription');
    return this;
  }

  get node() {
    return this.fanfare.state.node;
  }

  get losses() {
    return this.states.filter((it) => it === 'waiting').length;
  }

  /** That it has heard 1 to `last`, each once and in order, and was told of no gap. */
  async heardAll(last) {
    await until(() => this.heard.includes(last) || this.gaps.length > 0, `message ${last}`);
    assert.deepEqual(this.gaps, []);
    assert.deepEqual(this.heard, Array.from({ length: last }, (_, i) => i + 1));
  }

  close() {
    this.fanfare.close();
  }
}
