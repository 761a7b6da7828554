-- Keeps messages for later. This text stands in front of the scripts that use it.
--
-- A sorted set has their ids by due time in milliseconds, and a hash has the message of each id: the
-- name of the field that its entry will have, a space, and the value.

-- Schedules a message. Returns when it is due and 'new' or 'replaced'; with `keeps`, when the known
-- message of the same id is due, and 'kept'.
local function schedule(later, bodies, id, due, keeps, body)
  local known = redis.call('ZSCORE', later, id)
  if known and keeps then
    return known, 'kept'
  end
  due = string.format('%.0f', due)
  redis.call('ZADD', later, due, id)
  redis.call('HSET', bodies, id, body)
  return due, known and 'replaced' or 'new'
end

-- Appends due messages to the log and removes them from the messages for later. XADD in a script
-- wakes blocked readers. Returns how many it appended, the milliseconds until the next one is due or
-- -1, and how many had no body; or nil and an error, and has then written nothing.
local function promote_later(later, bodies, log, most, now)
  local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
  if not first[1] then
    return 0, -1, 0
  end
  if tonumber(first[2]) > now then
    return 0, tonumber(first[2]) - now, 0
  end
  -- Check every key's type before the first write: Redis does not roll a script back.
  for key, kind in pairs({[bodies] = 'hash', [log] = 'stream'}) do
    local found = redis.call('TYPE', key).ok
    if found ~= 'none' and found ~= kind then
      return nil, redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ', not a ' .. kind)
    end
  end
  local due = redis.call('ZRANGEBYSCORE', later, '-inf', string.format('%.0f', now), 'LIMIT', 0, most)
  local moved, missing, refused = 0, 0, nil
  -- In batches: each call from a script is expensive, and messages can be large.
  for from = 1, #due, 25 do
    local members = {unpack(due, from, math.min(from + 24, #due))}
    local done = {}
    for at, body in ipairs(redis.call('HMGET', bodies, unpack(members))) do
      -- A message without a body reads as false.
      local space = body and string.find(body, ' ', 1, true)
      if space then
        -- By pcall: a stream that has given its last id refuses the entry.
        local entry = redis.pcall('XADD', log, '*', string.sub(body, 1, space - 1),
          string.sub(body, space + 1))
        if type(entry) == 'table' then
          refused = entry
          break
        end
        moved = moved + 1
      else
        missing = missing + 1
      end
      done[at] = members[at]
    end
    if done[1] then
      redis.call('HDEL', bodies, unpack(done))
      redis.call('ZREM', later, unpack(done))
    end
    if refused then
      break
    end
  end
  if refused and moved == 0 then
    return nil, refused
  end
  first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
  return moved, first[1] and math.max(tonumber(first[2]) - now, 0) or -1, missing
end
