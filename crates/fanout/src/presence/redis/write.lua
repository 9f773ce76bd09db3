-- Performs changes of one channel in their order.
--   KEYS  the page's on:<seat>, sitting and over:<seat>, the channel's no:<seat before>, the page's told, owed and owes:<seat>
--   ARGV  seat, seat before or '', channel, pub/sub channel, what is to be told to whom, then pairs: e (enter), r (restore)
--         and a member, d (depart), l (leave) and a session
-- Answers one letter per change: p (present), l (lingering), a (absent). When the seat is being cleared it is x alone. Then what is
-- owed of the channel from now on.
local seat, before = ARGV[1], ARGV[2]
if redis.call('EXISTS', KEYS[7]) == 1 then
  return { 'x' }
end

local function enter(member, quiet)
  local session, user = session_of(member), user_of(member)
  local known = redis.call('HSET', at .. seat, session, member) == 0
  if not known then
    redis.call('SADD', seats, seat)
    list(seat, ARGV[3])
    touched[user] = true
    if redis.call('HINCRBY', users, user, 1) > 1 then
      quiet = true
    end
    if before ~= '' and take_out(before, session) then
      uncount(user)
    end
  end
  local back = redis.call('HGET', lingering, user)
  if back then
    redis.call('HDEL', lingering, user)
    if back ~= session .. seat and take_out(string.sub(back, 17), session_of(back)) then
      uncount(user)
    end
  end
  if not known and not quiet then
    tell(JOINED, member)
  end
  return 'p'
end

-- Of one who has been cleared away meanwhile it has been told that it left: it has to enter.
local function restore(member)
  if redis.call('EXISTS', KEYS[8]) == 1 and redis.call('HEXISTS', at .. before, session_of(member)) == 0 then
    return 'a'
  end
  return enter(member, true)
end

local function depart(session)
  local member = redis.call('HGET', at .. seat, session)
  if not member then
    return 'a'
  end
  local user = user_of(member)
  if tonumber(redis.call('HGET', users, user)) > 1 then
    leave(seat, session, member)
    return 'a'
  end
  redis.call('HSET', lingering, user, session .. seat)
  return 'l'
end

local done = {}
for i = 6, #ARGV, 2 do
  local step, what = ARGV[i], ARGV[i + 1]
  if step == 'e' then
    done[#done + 1] = enter(what, false)
  elseif step == 'r' then
    done[#done + 1] = restore(what)
  elseif step == 'd' then
    done[#done + 1] = depart(what)
  else
    local member = redis.call('HGET', at .. seat, what)
    if member then
      leave(seat, what, member)
    end
    done[#done + 1] = 'a'
  end
end
publish(ARGV[4], ARGV[5])
unlist(seat, ARGV[3])
local new = owe(ARGV[5], ARGV[3], seat, KEYS[9], KEYS[10], KEYS[11])
return { table.concat(done), unpack(new) }
