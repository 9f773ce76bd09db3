-- Takes note of what a backend was told of a channel, and tells what is still owed.
--   KEYS  the page's told, owed and owes:<seat>
--   ARGV  seat, topic, about, the level that it was told of or ''
-- Answers the level that it is to be told of, or -1.
local seat, topic = ARGV[1], ARGV[2]
local told, owed, owes = KEYS[5], KEYS[6], KEYS[7]
if redis.call('HGET', owed, topic) ~= seat then
  return -1
end
if ARGV[4] == '0' then
  redis.call('HDEL', told, topic)
elseif ARGV[4] ~= '' then
  redis.call('HSET', told, topic, ARGV[4])
end
local level = level_of(ARGV[3])
if level ~= tonumber(redis.call('HGET', told, topic) or 0) then
  return level
end
redis.call('HDEL', owed, topic)
redis.call('SREM', owes, topic)
return -1
