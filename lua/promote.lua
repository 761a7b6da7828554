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
-- A key of another type is found before anything is written.
for at, kind in pairs({[2] = 'hash', [3] = 'stream'}) do
  local held = redis.call('TYPE', KEYS[at]).ok
  if held ~= 'none' and held ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. held .. ', not a ' .. kind)
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now),
  'LIMIT', 0, ARGV[1])
local moved = 0
for _, member in ipairs(due) do
  local body = redis.call('HGET', KEYS[2], member)
  if body then
    redis.call('XADD', KEYS[3], '*', 'parcel', body)
    redis.call('HDEL', KEYS[2], member)
    moved = moved + 1
  end
  redis.call('ZREM', KEYS[1], member)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not first[1] then
  return {moved, -1}
end
return {moved, math.max(tonumber(first[2]) - now, 0)}
