-- Has a seat owe what a cold one did.
--   KEYS  a page's owed, owes:<cold>, owes:<own> and over:<own>
--   ARGV  the cold seat, its own, topics
-- Answers the topics that it owes from now on.
local new = {}
if redis.call('EXISTS', KEYS[4]) == 1 then
  return new
end
for i = 3, #ARGV do
  redis.call('SREM', KEYS[2], ARGV[i])
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[2])
    redis.call('SADD', KEYS[3], ARGV[i])
    new[#new + 1] = ARGV[i]
  end
end
return new
