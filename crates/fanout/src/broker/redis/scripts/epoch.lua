-- What every script begins with: where a channel's stream stands.
--
-- meta, a hash: `epoch` (8 bytes, never all 0), `offset` of the newest publication, and `life`, the server process that
-- the epoch belongs to. A replica that was promoted, or a server that came back from its disk, may have lost the
-- newest publications: it goes on under another epoch, so that no position ever names two publications. What it still
-- has it keeps, and offsets go on.

-- Begins an epoch if there is none of this life. Returns the epoch and the offset.
-- The first write is an HSET, which a server without memory or for reading only refuses before anything has changed.
local function stand(meta, stream, keep, fresh, life)
  local found = redis.call('HMGET', meta, 'epoch', 'offset', 'life')
  if not found[1] then
    redis.call('HSET', meta, 'epoch', fresh, 'offset', 0, 'life', life)
    redis.call('PEXPIRE', meta, keep)
    redis.call('DEL', stream) -- Left over from an epoch that nobody knows any more.
    return fresh, 0
  end
  if found[3] ~= life then
    redis.call('HSET', meta, 'epoch', fresh, 'life', life)
    return fresh, tonumber(found[2])
  end
  return found[1], tonumber(found[2])
end

-- A position as an envelope has it: two numbers of 8 bytes, the greatest byte first.
local function position(epoch, offset)
  return epoch .. struct.pack('>I8', offset)
end

