-- Clears some members of a cold seat from one channel.
--   ARGV  seat, pub/sub channel, how many at most, for how many milliseconds nothing may be written under the seat
-- Answers how many are left.
local seat, channel = ARGV[1], ARGV[2]
redis.call('SET', KEYS[5], 1, 'PX', ARGV[4])
local some = redis.call('HRANDFIELD', at .. seat, ARGV[3], 'WITHVALUES')
for i = 1, #some, 2 do
  leave(seat, some[i], some[i + 1])
end
publish(channel)
return redis.call('HLEN', at .. seat)
