-- Moves due retries to the group's redelivery stream, and due messages for later to the log.
--
-- The script writes an entry before it removes the retry or message. XADD in a script wakes blocked
-- readers.
--
-- KEYS[1]  the group's retries by due time, a sorted set
-- KEYS[2]  their redeliveries, a hash
-- KEYS[3]  the group's redelivery stream
-- KEYS[4]  the topic's messages for later by due time, a sorted set or absent
-- KEYS[5]  their bodies, a hash or absent
-- KEYS[6]  the log, a stream
-- ARGV[1]  how many of each to move at most
--
-- Returns {how many retries were moved, how many messages were appended, milliseconds until the next
-- of both is due or -1 when there is none, how many had no redelivery or body: something other than
-- Redstart removed it, the time in milliseconds}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Returns how many retries were moved, the milliseconds until the next one is due or -1, and how many
-- had no redelivery; or nil and an error.
local function promote_retries()
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  if not first[1] then
    return 0, -1, 0
  end
  if tonumber(first[2]) > now then
    return 0, tonumber(first[2]) - now, 0
  end
  -- Check every key's type before the first write: Redis does not roll a script back.
  for at, kind in pairs({[2] = 'hash', [3] = 'stream'}) do
    local found = redis.call('TYPE', KEYS[at]).ok
    if found ~= 'none' and found ~= kind then
      return nil, redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. found .. ', not a ' .. kind)
    end
  end
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now),
    'LIMIT', 0, ARGV[1])
  local moved = 0
  -- In batches: each call from a script is expensive, and redeliveries can be large.
  for from = 1, #due, 25 do
    local members = {unpack(due, from, math.min(from + 24, #due))}
    for _, body in ipairs(redis.call('HMGET', KEYS[2], unpack(members))) do
      -- A retry without a redelivery reads as false.
      if body then
        redis.call('XADD', KEYS[3], '*', 'parcel', body)
        moved = moved + 1
      end
    end
    redis.call('HDEL', KEYS[2], unpack(members))
    redis.call('ZREM', KEYS[1], unpack(members))
  end
  first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return moved, first[1] and math.max(tonumber(first[2]) - now, 0) or -1, #due - moved
end

local moved, next, missing = promote_retries()
if not moved then
  return next
end
-- Retries come first, so that they are moved whatever is wrong with the messages for later.
local published, next_message, without_body = promote_later(KEYS[4], KEYS[5], KEYS[6], ARGV[1], now)
if not published then
  return next_message
end
if next < 0 or next_message >= 0 and next_message < next then
  next = next_message
end
return {moved, published, next, missing + without_body, now}
