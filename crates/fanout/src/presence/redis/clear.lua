-- Clears some members of a cold seat from one channel.
--   KEYS  the page's on:<seat> and sitting, the channel's no:<seat>
--   ARGV  seat, channel, pub/sub channel, how many at most, for how many milliseconds the channel remembers
-- Answers how many are left.
local seat = ARGV[1]
redis.call('SET', KEYS[7], 1, 'PX', ARGV[5])
local some = redis.call('HRANDFIELD', at .. seat, ARGV[4], 'WITHVALUES')
for i = 1, #some, 2 do
  leave(seat, some[i], some[i + 1])
end
publish(ARGV[3])
unlist(seat, ARGV[2])
return redis.call('HLEN', at .. seat)
