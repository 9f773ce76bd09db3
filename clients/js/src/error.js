/** Why something was not done: the server's `error`, or a reason of the client's own, whose code is 0. */
export class FanfareError extends Error {
  name = 'FanfareError';

  /** `isUncertain`: it was sent, and whether it was done nobody here knows. */
  constructor({ code = 0, reason, message = reason, retry_after }, isUncertain = false) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.retryAfterMs = retry_after;
    this.isUncertain = isUncertain;
  }
}
