-- Removes a group and all its keys, if nobody needs it.
--
-- Check and removal must be one step: between two, a published message would be lost, and a consumer
-- that joins would find its group gone.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream, or absent
-- KEYS[3]  its retries by due time, a sorted set or absent
-- KEYS[4]  the redeliveries of these retries, a hash or absent
-- KEYS[5]  the heads of its dead letters, a stream or absent
-- KEYS[6]  their bodies, a hash or absent
-- KEYS[7]  their counts, a hash or absent
-- KEYS[8]  their causes, a hash or absent
-- KEYS[9]  the restored identities, a hash or absent
-- KEYS[10]  the uncounted sums of removed dead letters, a hash or absent
-- KEYS[11]  the group's journal, a hash or absent
-- KEYS[12]  its operators' notes, a hash or absent
-- KEYS[13]  the topic's settings, a hash or absent
-- KEYS[14]  the members of an owned group, a sorted set or absent
-- KEYS[15]  their partitions, a hash or absent
-- KEYS[16]  the last token of each partition, a hash or absent
-- KEYS[17]  the cursor of the partition, a hash or absent
-- KEYS[18]  the notes of unsettled messages, a hash or absent
-- ARGV[1]  the group
-- ARGV[2]  within how many milliseconds a consumer must have been active to count as live
-- ARGV[3]  'force' to remove the group in any case, '' to remove it only when it is empty and has no live consumer
--
-- Returns {1 when the group was removed and 0 when not, lag, in flight, scheduled retries and unread
-- redeliveries, dead letters, consumers, live consumers, 1 for an owned group and 0 for a shared one}, or
-- an empty list when there is no such group. Above a thousand entries or 256 KiB the lag is an upper bound.
local log, redo = find_group(KEYS[1], ARGV[1]), find_group(KEYS[2], ARGV[1])
if not log then
  return {}
end
local lag, in_flight = lag_of(KEYS[1], log, 1000, 262144), log['pending']
local waiting = redis.call('ZCARD', KEYS[3])
if redo then
  waiting = waiting + lag_of(KEYS[2], redo, 1000, 262144)
  in_flight = in_flight + redo['pending']
end
local dead = redis.call('XLEN', KEYS[5])
local alive, living = {}, 0
for lane = 1, 2 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[lane], ARGV[1])
  if consumers.err and not string.find(consumers.err, 'no such key', 1, true)
    and string.sub(consumers.err, 1, 7) ~= 'NOGROUP' then
    return consumers
  end
  for _, flat in ipairs(consumers.err and {} or consumers) do
    local consumer = named(flat)
    if consumer['idle'] < tonumber(ARGV[2]) and not alive[consumer['name']] then
      alive[consumer['name']] = true
      living = living + 1
    end
  end
end

if KEYS[14] then
  local time = redis.call('TIME')
  local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  living = living + #redis.call('ZRANGE', KEYS[14], '(' .. now, '+inf', 'BYSCORE')
end

local owned = KEYS[13] and redis.call('HGET', KEYS[13], 'owned:' .. ARGV[1])
local removed = 0
if ARGV[3] == 'force' or lag + in_flight + waiting + dead + living == 0 then
  redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
  if KEYS[13] then
    redis.pcall('HDEL', KEYS[13], 'lease:' .. ARGV[1], 'owned:' .. ARGV[1])
  end
  for key = 2, #KEYS do
    if key ~= 13 then
      -- UNLINK frees a million dead letters outside the server's main thread.
      redis.call('UNLINK', KEYS[key])
    end
  end
  removed = 1
end
return {removed, lag, in_flight, waiting, dead, log['consumers'], living, owned and 1 or 0}
