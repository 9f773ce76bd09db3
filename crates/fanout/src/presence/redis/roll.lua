-- What the scripts of one channel have in common: the names of its keys, and the only ways to change them.
--
--   KEYS[1]  <c>:users      hash  user key -> how many connections the user has
--   KEYS[2]  <c>:seats      set   the seats that hold members
--   KEYS[3]  <c>:lingering  hash  user key -> session, seat of the one connection that lingers
--   KEYS[4]  <c>:at:        what the name of a seat is appended to, for
--            <c>:at:<seat>  hash  session -> member
--            <c>:no:<seat>  the seat has been cleared here, or is being
--   KEYS[5]  <page>:on:<seat>   set   the channels on which the seat holds members
--   KEYS[6]  <page>:sitting     set   the seats with such channels
--
-- The last two are not given where nothing is written.
-- PUBLISH is the command by which notices are told.
-- A member's bytes begin with its session (16) and its flags (1); flag 1 says that a length (4) and the user follow.
-- A user key is 'u' and the user, or 's' and the session of an anonymous connection.
local users, seats, lingering, at = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local JOINED, LEFT, COUNT = 1, 2, 3

local notice = {}
-- The user keys of those whose number of connections has changed.
local touched = {}

local function tell(kind, member)
  notice[#notice + 1] = struct.pack('>BI4', kind, #member) .. member
end

-- What a backend is to be told of (see debts.rs): o, c, or a user key that begins with u.
local function level_of(about)
  if about == 'o' then
    return redis.call('EXISTS', users)
  elseif about == 'c' then
    local connections = 0
    for _, seat in ipairs(redis.call('SMEMBERS', seats)) do
      connections = connections + redis.call('HLEN', at .. seat)
    end
    return connections
  end
  return redis.call('HEXISTS', users, about)
end

-- Tells the nodes that watch the channel; also how many connections there are now, where that is wanted.
local function publish(channel, wants)
  if string.find(wants, '^n;') and next(touched) then
    notice[#notice + 1] = struct.pack('>BI4I4', COUNT, 4, level_of('c'))
  end
  if #notice > 0 then
    redis.call(PUBLISH, channel, '\2' .. table.concat(notice))
  end
end

-- A seat is found by its page.
local function list(seat, channel)
  redis.call('SADD', KEYS[5], channel)
  redis.call('SADD', KEYS[6], seat)
end

-- Unless it holds somebody.
local function unlist(seat, channel)
  if redis.call('EXISTS', at .. seat) == 0 and redis.call('SREM', KEYS[5], channel) == 1 then
    if redis.call('EXISTS', KEYS[5]) == 0 then
      redis.call('SREM', KEYS[6], seat)
    end
  end
end

local function session_of(member)
  return string.sub(member, 1, 16)
end

local function user_of(member)
  if string.byte(member, 17) % 2 == 1 then
    local length = struct.unpack('>I4', member, 18)
    return 'u' .. string.sub(member, 22, 21 + length)
  end
  return 's' .. session_of(member)
end

-- Takes a session out of a seat; false when it was not there. The user's count is left to the caller.
local function take_out(seat, session)
  if redis.call('HDEL', at .. seat, session) == 0 then
    return false
  end
  if redis.call('EXISTS', at .. seat) == 0 then
    redis.call('SREM', seats, seat)
  end
  return true
end

-- One connection less; true when it was the user's last.
local function uncount(user)
  touched[user] = true
  if redis.call('HINCRBY', users, user, -1) > 0 then
    return false
  end
  redis.call('HDEL', users, user)
  return true
end

local function leave(seat, session, member)
  local user = user_of(member)
  if redis.call('HGET', lingering, user) == session .. seat then
    redis.call('HDEL', lingering, user)
  end
  if take_out(seat, session) and uncount(user) then
    tell(LEFT, member)
  end
end

-- Writes down what a seat owes after the changes: what differs from what was told, unless somebody owes it already.
--   wants  'n;' where those who hear the channel are told how many they are, then for each backend its name between an @ and a
--          space, or nothing, and what it is to be told of: o, c, u and a semicolon
--   told   hash  topic -> the level that the backend knows of, if that is not 0
--   owed   hash  topic -> the seat that owes word of it
--   owes   set   the topics of which the seat does
-- Answers the topics, without the channel.
local function owe(wants, channel, seat, told, owed, owes)
  local new = {}
  local function compare(backend, about)
    local topic = channel .. ' ' .. backend .. about
    if level_of(about) ~= tonumber(redis.call('HGET', told, topic) or 0)
      and redis.call('HSETNX', owed, topic, seat) == 1 then
      redis.call('SADD', owes, topic)
      new[#new + 1] = backend .. about
    end
  end
  for backend, kinds in string.gmatch(wants, '([^;]-)(%a*);') do
    if string.find(kinds, 'o') then
      compare(backend, 'o')
    end
    if string.find(kinds, 'u') then
      for user in pairs(touched) do
        if string.sub(user, 1, 1) == 'u' then
          compare(backend, user)
        end
      end
    end
    if string.find(kinds, 'c') then
      compare(backend, 'c')
    end
  end
  return new
end
