-- Moves due retries to the group's redelivery stream.
--
-- The script writes the entry before it removes the retry. XADD in a script wakes blocked readers.
--
-- KEYS[1]  the group's retries by due time, a sorted set
-- KEYS[2]  their redeliveries, a hash
-- KEYS[3]  the group's redelivery stream
-- ARGV[1]  how many to move at most
--
-- Returns {how many were moved, milliseconds until the next retry is due or -1 when there is none, how
-- many retries had no redelivery: something other than Redstart removed it}.
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not first[1] then
  return {0, -1, 0}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(first[2]) > now then
  return {0, tonumber(first[2]) - now, 0}
end
-- Check every key's type before the first write: Redis does not roll a script back.
for at, kind in pairs({[2] = 'hash', [3] = 'stream'}) do
  local found = redis.call('TYPE', KEYS[at]).ok
  if found ~= 'none' and found ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. found .. ', not a ' .. kind)
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
if not first[1] then
  return {moved, -1, #due - moved}
end
return {moved, math.max(tonumber(first[2]) - now, 0), #due - moved}
