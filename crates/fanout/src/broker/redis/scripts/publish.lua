-- Appends a publication to its channel's stream and publishes it, in one step.
--
-- KEYS  1 meta, 2 stream, 3 where the idempotency key is remembered, if the draft has one
-- ARGV  1 the envelope's body, 2 the pub/sub channel, 3 the most publications kept; in ms: 4 how long they are kept,
--       5 meta, 6 the idempotency key; 7 PUBLISH or SPUBLISH, 8 an epoch, should one begin, 9 the server's life
-- The pub/sub channel is no key, though it lies in the same slot: while Redis Cluster moves a slot, it refuses scripts with
-- keys that do not exist, and this one never would.
-- Answers with the position: this publication's, or that of the first one with its key.

if KEYS[3] then
  local first = redis.call('GET', KEYS[3])
  if first then
    return first
  end
end
local epoch, top = stand(KEYS[1], KEYS[2], ARGV[5], ARGV[8], ARGV[9])
local offset = top + 1
local placed = position(epoch, offset)
local envelope = '\1' .. placed .. ARGV[1]
redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[3], offset, 'e', envelope)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('HSET', KEYS[1], 'offset', offset)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if KEYS[3] then
  redis.call('SET', KEYS[3], placed, 'PX', ARGV[6])
end
local published = redis.pcall(ARGV[7], ARGV[2], envelope)
if type(published) == 'table' then
  -- It may not be published: then it was never appended.
  redis.call('XDEL', KEYS[2], offset)
  redis.call('XSETID', KEYS[2], top)
  redis.call('HSET', KEYS[1], 'offset', top)
  if KEYS[3] then
    redis.call('DEL', KEYS[3])
  end
  return published
end
return placed
