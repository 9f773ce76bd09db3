-- Reads a part of a channel's history, as it is at one moment.
--
-- KEYS  1 meta, 2 stream
-- ARGV  1 XRANGE or XREVRANGE, 2 and 3 its bounds, 4 the most publications, 0 for none, 5 how long meta is kept, in ms;
--       6 an epoch, should one begin, 7 the server's life
-- Answers with the position of the newest publication, and the envelopes.

local epoch, top = stand(KEYS[1], KEYS[2], ARGV[5], ARGV[6], ARGV[7])
local envelopes = {}
if ARGV[4] ~= '0' then
  for at, entry in ipairs(redis.call(ARGV[1], KEYS[2], ARGV[2], ARGV[3], 'COUNT', ARGV[4])) do
    envelopes[at] = entry[2][2]
  end
end
return { position(epoch, top), envelopes }
