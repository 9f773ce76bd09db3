-- Lists a seat and its channels before members are written under it: whoever clears seats finds them here.
--   KEYS  seats, the seat's channels
--   ARGV  seat, channels
redis.call('SADD', KEYS[1], ARGV[1])
return redis.call('SADD', KEYS[2], unpack(ARGV, 2))
