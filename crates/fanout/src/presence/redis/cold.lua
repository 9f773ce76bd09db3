-- Picks a seat that is cold and that nobody else is clearing, and some of its channels.
--   KEYS  seats
--   ARGV  prefixes: of a seat's warmth, of its channels, of its lock; for how many milliseconds it is locked; how many channels
--         at most
-- Answers the seat and the channels, or nothing. A seat without channels is forgotten here.
for _, seat in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[1] .. seat) == 0 then
    local channels = redis.call('SRANDMEMBER', ARGV[2] .. seat, ARGV[5])
    if #channels == 0 then
      redis.call('SREM', KEYS[1], seat)
    elseif redis.call('SET', ARGV[3] .. seat, 1, 'NX', 'PX', ARGV[4]) then
      return { seat, channels }
    end
  end
end
return {}
