-- Lists a seat and pages before anything is written under it there: whoever clears seats finds them here.
--   KEYS  seats, the seat's pages
--   ARGV  seat, pages
redis.call('SADD', KEYS[1], ARGV[1])
return redis.call('SADD', KEYS[2], unpack(ARGV, 2))
