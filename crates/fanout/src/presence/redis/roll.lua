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
local JOINED, LEFT = 1, 2

local notice = {}

local function tell(kind, member)
  notice[#notice + 1] = struct.pack('>BI4', kind, #member) .. member
end

local function publish(channel)
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
