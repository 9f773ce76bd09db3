/**
 * A file over a channel: who sends it and who receives it.
 *
 *   sender ──► {file, name, size, chunks}                on the channel: a description,
 *          ──► {file, seq, bytes}  …                     the chunks, as bytes,
 *          ──► {file, end: true, sha256}                 and what they must add up to
 *   receiver ──► {file, next}  …                         on the channel's `.acks`: what it wants next
 *
 * The sender is never more than a window ahead of what the receiver wants. The window is smaller than the channel's history,
 * so whatever the receiver misses while it is away is replayed when it comes back; should it be gone after all, the
 * receiver says what it wants next, and the sender goes back to there. A sender that has missed acks asks for one.
 */

import { createHash, randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { open, rename } from 'node:fs/promises';
import { basename, join } from 'node:path';

/** What the names around the bytes of a chunk take, at most. */
const ENVELOPE_BYTES = 512;
const CHUNK_BYTES_MAX = 32 * 1024;
/** Chunks on their way: less than half of the 100 messages that a channel keeps by default. */
const WINDOW = 32;
const ACK_EVERY = 8;

export const acks = (channel) => `${channel}.acks`;

/** Sends a file and resolves when the receiver has all of it; `setbacks` counts how often history did not. */
export async function send(client, channel, path, onProgress = () => {}) {
  const source = await open(path);
  try {
    const { size } = await source.stat();
    const chunkBytes = Math.min(CHUNK_BYTES_MAX, client.welcome.limits.message_bytes - ENVELOPE_BYTES);
    const transfer = { file: randomUUID(), size, chunks: Math.ceil(size / chunkBytes) };
    const wanted = await follow(client, channel, transfer.file);
    const sha256 = await hashOf(source);

    const description = { ...transfer, name: basename(path) };
    await client.publish(channel, description, `${transfer.file}:begin`);
    let round = 0;
    for (let seq = 0; wanted.next <= transfer.chunks; ) {
      if (wanted.isReset) {
        // The receiver has lost something for good: other keys, since the old ones would publish nothing.
        wanted.isReset = false;
        round += 1;
        seq = wanted.next;
        if (seq === 0) await client.publish(channel, description, `${transfer.file}:begin:${round}`);
      }
      if (seq > transfer.chunks || seq >= wanted.next + WINDOW) {
        await once(wanted.changes, 'change');
        continue;
      }
      const data =
        seq < transfer.chunks
          ? { file: transfer.file, seq, bytes: await chunk(source, seq * chunkBytes, chunkBytes) }
          : { file: transfer.file, end: true, sha256 };
      await client.publish(channel, data, `${transfer.file}:${seq}:${round}`);
      seq += 1;
      onProgress(Math.min(seq, transfer.chunks), transfer.chunks);
    }
    return { ...transfer, sha256, setbacks: round };
  } finally {
    await source.close();
  }
}

/** What the receiver of a file wants, from now on. */
async function follow(client, channel, file) {
  const wanted = { next: 0, isReset: false, changes: new EventEmitter() };
  const onAck = (ack) => {
    if (ack.file !== file) return;
    wanted.isReset ||= ack.isReset === true;
    wanted.next = ack.isReset ? ack.next : Math.max(wanted.next, ack.next);
    wanted.changes.emit('change');
  };
  const onGap = () => client.publish(channel, { file, isProbe: true }, randomUUID());
  await client.subscribe(acks(channel), onAck, onGap);
  return wanted;
}

async function chunk(source, position, length) {
  const { bytesRead, buffer } = await source.read(Buffer.alloc(length), 0, length, position);
  return buffer.subarray(0, bytesRead);
}

async function hashOf(source) {
  const hash = createHash('sha256');
  for await (const part of source.createReadStream({ start: 0, autoClose: false })) hash.update(part);
  return hash.digest();
}

/** Receives the next file of a channel into a folder; calls `onReady` when a sender may begin. */
export async function receive(client, channel, folder, { onReady = () => {}, onProgress = () => {} } = {}) {
  const receiver = new Receiver(client, channel, folder, onProgress);
  const received = once(receiver, 'received');
  await client.subscribe(channel, (data) => receiver.take(data), () => receiver.reset());
  onReady();
  const [result] = await received;
  return result;
}

class Receiver extends EventEmitter {
  #client;
  #channel;
  #folder;
  #onProgress;
  /** What its sender said of the file. */
  #transfer = null;
  #target = null;
  #hash = null;
  #next = 0;

  constructor(client, channel, folder, onProgress) {
    super();
    this.#client = client;
    this.#channel = channel;
    this.#folder = folder;
    this.#onProgress = onProgress;
  }

  /** Takes the next message of the channel; whatever is not the next piece of our file is somebody else's, or old. */
  async take(data) {
    if (this.#transfer === null) {
      if (data.name !== undefined) await this.#begin(data);
    } else if (data.file === this.#transfer.file) {
      if (data.seq === this.#next) await this.#append(data.bytes);
      else if (data.isProbe) this.#acknowledge();
      else if (data.end && this.#next === this.#transfer.chunks) await this.#finish(data.sha256);
    }
  }

  /** Something is gone that history does not have any more. */
  reset() {
    if (this.#transfer !== null) this.#acknowledge({ isReset: true });
  }

  async #begin(transfer) {
    this.#transfer = transfer;
    this.#hash = createHash('sha256');
    this.#target = await open(this.#partPath(), 'w');
  }

  async #append(bytes) {
    await this.#target.write(bytes);
    this.#hash.update(bytes);
    this.#next += 1;
    this.#onProgress(this.#next, this.#transfer.chunks);
    if (this.#next % ACK_EVERY === 0) this.#acknowledge();
  }

  async #finish(sha256) {
    const { name, size } = this.#transfer;
    await this.#target.close();
    const digest = this.#hash.digest();
    if (!digest.equals(sha256)) throw new Error(`${name} is not what was sent: SHA-256 ${digest.toString('hex')}`);
    const path = join(this.#folder, basename(name));
    await rename(this.#partPath(), path);
    this.#next += 1; // The end was the last thing wanted.
    void this.#acknowledge().then(() => this.emit('received', { path, size, sha256: digest }));
  }

  #partPath() {
    return join(this.#folder, `${this.#transfer.file}.part`);
  }

  /**
   * Tells the sender what is wanted next. Not awaited while messages are taken: the answer to it may come behind more of them
   * than may wait.
   */
  #acknowledge(more = {}) {
    const { file } = this.#transfer;
    const published = this.#client.publish(acks(this.#channel), { file, next: this.#next, ...more }, randomUUID());
    published.catch((error) => this.emit('error', error));
    return published;
  }
}
