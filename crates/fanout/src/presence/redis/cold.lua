-- Picks a seat that is cold and that nobody else is clearing, and some of its pages.
--   KEYS  seats
--   ARGV  prefixes: of a seat's warmth, of its pages, of its lock; for how many milliseconds it is locked; how many pages at most
-- Answers the seat and the pages, or nothing. A seat without pages is forgotten here.
for _, seat in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[1] .. seat) == 0 then
    local pages = redis.call('SRANDMEMBER', ARGV[2] .. seat, ARGV[5])
    if #pages == 0 then
      redis.call('SREM', KEYS[1], seat)
    elseif redis.call('SET', ARGV[3] .. seat, 1, 'NX', 'PX', ARGV[4]) then
      return { seat, pages }
    end
  end
end
return {}
