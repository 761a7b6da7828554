-- Takes the cursor of a partition under a token: from now on the store writes steps of this owner only.
--
-- The group's last delivered id is the lower end of its cursor. Where something moved it since the last
-- step, such as group_reset.lua, the cursor follows.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- KEYS[3]  the cursor, a hash or absent
-- KEYS[4]  the notes of unsettled messages and the marks of settled ones, a hash or absent
-- ARGV[1]  the group
-- ARGV[2]  the owner
-- ARGV[3]  its token
--
-- Returns {'taken', now in milliseconds, low, high and done ranges of the log and of the redelivery stream,
-- {message, note, …}}, {'stale', token} when the cursor has one that is not smaller, or an empty list when
-- there is no such group.
local wrong = check_types({'stream', 'stream', 'hash', 'hash'})
if wrong then
  return wrong
end
local groups = {find_group(KEYS[1], ARGV[1]), find_group(KEYS[2], ARGV[1])}
if not groups[1] or not groups[2] then
  return {}
end
local stored = redis.call('HMGET', KEYS[3], 'token', 'owner')
local token, asked = tonumber(stored[1] or '0'), tonumber(ARGV[3])
if token > asked or token == asked and stored[2] ~= ARGV[2] then
  return {'stale', stored[1] or '0'}
end
-- Needs no memory. Redis then does not refuse the next write either.
redis.call('HDEL', KEYS[3], token < asked and 'number' or '')
local fields, lanes, moved = {'token', ARGV[3], 'owner', ARGV[2]}, {'log', 'redo'}, {}
local time = redis.call('TIME')
local answer = {'taken', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))}
for at, lane in ipairs(lanes) do
  local low = groups[at]['last-delivered-id']
  local cursor = redis.call('HMGET', KEYS[3], lane .. ':low', lane .. ':high', lane .. ':done')
  if cursor[1] ~= low then
    moved[lane] = true
    cursor = {low, low, ''}
    local read = groups[at]['entries-read']
    for name, value in pairs({low = low, high = low, done = '', read = read and string.format('%.0f', read) or ''}) do
      fields[#fields + 1], fields[#fields + 2] = lane .. ':' .. name, value
    end
  end
  for part = 1, 3 do
    answer[#answer + 1] = cursor[part]
  end
end
redis.call('HSET', KEYS[3], unpack(fields))
local kept, notes = {}, redis.call('HGETALL', KEYS[4])
for at = 1, #notes, 2 do
  -- Entries that effects have settled are handled again where the cursor was moved.
  if notes[at + 1] == 'done' and moved[string.match(notes[at], '^%a+')] then
    redis.call('HDEL', KEYS[4], notes[at])
  else
    kept[#kept + 1], kept[#kept + 2] = notes[at], notes[at + 1]
  end
end
answer[#answer + 1] = kept
return answer
