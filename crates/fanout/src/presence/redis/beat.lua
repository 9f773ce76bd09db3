-- Keeps a seat warm.
--   KEYS  life, seats, the seat's warmth
--   ARGV  seat, for how many milliseconds, a random number, 1 when the seat is new
-- Answers whether it is warm, and the number that names this book.
redis.call('SET', KEYS[1], ARGV[3], 'NX')
local warm = redis.call('SET', KEYS[3], 1, 'PX', ARGV[2], ARGV[4] == '1' and 'NX' or 'XX')
if warm then
  redis.call('SADD', KEYS[2], ARGV[1])
end
return { warm and 1 or 0, redis.call('GET', KEYS[1]) }
