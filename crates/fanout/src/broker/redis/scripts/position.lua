-- Where a channel's stream stands. Whoever asks watches the channel: its meta must not expire meanwhile.
--
-- KEYS  1 meta, 2 stream
-- ARGV  1 how long meta is kept at least, in ms; 2 an epoch, should one begin, 3 the server's life
-- Answers with the position of the newest publication, or with nothing where there is no stream.

local left = redis.call('PTTL', KEYS[1])
if left == -2 then
  return false
end
local epoch, top = stand(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if left < ARGV[1] / 2 then -- Not every time: a refresh is a write, which goes to replicas and to the disk.
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return position(epoch, top)
