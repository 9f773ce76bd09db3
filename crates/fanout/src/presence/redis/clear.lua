-- Clears some members of a cold seat from one channel.
--   KEYS  the page's on:<seat> and sitting, the channel's no:<seat>, the page's told, owed, owes:<own> and over:<own>
--   ARGV  seat, channel, pub/sub channel, how many at most, for how many milliseconds the channel remembers, the seat of who clears,
--         what is to be told to whom
-- Answers how many are left, and what the one who clears owes of the channel from now on. Whose own seat is being cleared could not
-- owe anything: where there is something to be told it clears nobody.
local seat = ARGV[1]
if ARGV[7] ~= '' and redis.call('EXISTS', KEYS[11]) == 1 then
  return false
end
redis.call('SET', KEYS[7], 1, 'PX', ARGV[5])
local some = redis.call('HRANDFIELD', at .. seat, ARGV[4], 'WITHVALUES')
for i = 1, #some, 2 do
  leave(seat, some[i], some[i + 1])
end
publish(ARGV[3], ARGV[7])
unlist(seat, ARGV[2])
local new = owe(ARGV[7], ARGV[2], ARGV[6], KEYS[8], KEYS[9], KEYS[10])
return { redis.call('HLEN', at .. seat), unpack(new) }
