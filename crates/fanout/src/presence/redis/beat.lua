-- Keeps a seat warm.
--   KEYS  seats, the seat's warmth
--   ARGV  seat, for how many milliseconds, 1 when the seat is new
-- Answers whether it is warm.
if not redis.call('SET', KEYS[2], 1, 'PX', ARGV[2], ARGV[3] == '1' and 'NX' or 'XX') then
  return 0
end
redis.call('SADD', KEYS[1], ARGV[1])
return 1
