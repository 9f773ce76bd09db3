-- Reads a channel's crowd at one moment.
--   ARGV  the most connections that are named, 0 when nobody is to be
-- Answers users, connections, and members for each seat.
local connections, members = 0, {}
local where = redis.call('SMEMBERS', seats)
for _, seat in ipairs(where) do
  connections = connections + redis.call('HLEN', at .. seat)
end
if connections <= tonumber(ARGV[1]) then
  for _, seat in ipairs(where) do
    members[#members + 1] = redis.call('HVALS', at .. seat)
  end
end
return { redis.call('HLEN', users), connections, members }
