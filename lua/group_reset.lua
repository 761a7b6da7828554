-- Moves a group's cursor in the log, if no consumer of the group is live.
--
-- Check and move must be one step: a consumer that joins between the two would read from the old place
-- and settle entries beside the new one.
--
-- Redis loses count of the group's reads when the cursor moves. The script tells it again how many
-- entries lie behind the group, where counting the entries ahead is cheap.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream, or absent
-- KEYS[3]  the cursor of an owned group, a hash or absent
-- KEYS[4]  the members of an owned group, a sorted set or absent
-- ARGV[1]  the group
-- ARGV[2]  where the group goes on: 'beginning', 'end', or the id of the first entry to read next
-- ARGV[3]  the id before that one, '' for the words
-- ARGV[4]  within how many milliseconds a consumer must have been active to count as live
--
-- Returns {1 when the cursor moved and 0 when not, live consumers, the cursor before, the cursor after},
-- or an empty list when there is no such group.
local group = find_group(KEYS[1], ARGV[1])
if not group then
  return {}
end
local alive, living = {}, 0
for lane = 1, 2 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[lane], ARGV[1])
  if consumers.err and not string.find(consumers.err, 'no such key', 1, true)
    and string.sub(consumers.err, 1, 7) ~= 'NOGROUP' then
    return consumers
  end
  for _, flat in ipairs(consumers.err and {} or consumers) do
    local consumer = named(flat)
    if consumer['idle'] < tonumber(ARGV[4]) and not alive[consumer['name']] then
      alive[consumer['name']] = true
      living = living + 1
    end
  end
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
living = living + #redis.call('ZRANGE', KEYS[4], '(' .. now, '+inf', 'BYSCORE')
local before = group['last-delivered-id']
if living > 0 then
  return {0, living, before, before}
end

local log = named(redis.call('XINFO', 'STREAM', KEYS[1]))
local to, ahead = ARGV[3], nil
if ARGV[2] == 'beginning' then
  to, ahead = '0-0', log['length']
elseif ARGV[2] == 'end' or #redis.call('XRANGE', KEYS[1], ARGV[2], '+', 'COUNT', 1) == 0 then
  -- A place after the newest entry would hide the entries that come before it.
  to, ahead = log['last-generated-id'], 0
else
  local left, all = count(KEYS[1], '(' .. to, '+', 10000, 4194304)
  ahead = all and left
end
local move = {'XGROUP', 'SETID', KEYS[1], ARGV[1], to}
if ahead then
  move[6], move[7] = 'ENTRIESREAD', string.format('%.0f', log['entries-added'] - ahead)
end
local token = tonumber(redis.call('HGET', KEYS[3], 'token') or '')
redis.call(unpack(move))
if token then
  -- Whoever owns the partition must take the cursor again, and then follows it.
  redis.call('HSET', KEYS[3], 'token', string.format('%.0f', token + 1), 'owner', '')
  redis.call('HDEL', KEYS[3], 'log:low', 'log:high', 'log:done')
end
return {1, 0, before, to}
