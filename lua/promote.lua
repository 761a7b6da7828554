-- Moves retries whose time has come to the group's redo lane.
--
-- The entry is written before the retry is removed. XADD in a script wakes blocked readers.
--
-- KEYS[1]  the group's retries by due time, a sorted set
-- KEYS[2]  their bodies, a hash
-- KEYS[3]  the group's redo lane, a stream
-- ARGV[1]  how many at most
--
-- Returns {how many were moved, milliseconds until the next is due or -1 when none waits}.
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not first[1] then
  return {0, -1}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(first[2]) > now then
  return {0, tonumber(first[2]) - now}
end
-- A key of another type is found before anything is written.
for at, kind in pairs({[2] = 'hash', [3] = 'stream'}) do
  local held = redis.call('TYPE', KEYS[at]).ok
  if held ~= 'none' and held ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. held .. ', not a ' .. kind)
  end
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now),
  'LIMIT', 0, ARGV[1])
local moved = 0
-- Some at a time: a call from a script is dear, and bodies may be large.
for from = 1, #due, 25 do
  local members = {unpack(due, from, math.min(from + 24, #due))}
  for _, body in ipairs(redis.call('HMGET', KEYS[2], unpack(members))) do
    -- One without a body is false.
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
  return {moved, -1}
end
return {moved, math.max(tonumber(first[2]) - now, 0)}
