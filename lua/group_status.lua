-- Counts a group's messages by state, at one moment.
--
-- A message moves between the streams and the retries, so separate commands could miss it everywhere.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream, or absent
-- KEYS[3]  its retries by due time, a sorted set or absent
-- KEYS[4]  the heads of its dead letters, a stream or absent
-- ARGV[1]  the group
--
-- Returns {lag, in flight, scheduled retries and unread redeliveries, dead letters, consumers}, or an
-- empty list when there is no such group. Above a thousand entries or 256 KiB the lag is an upper
-- bound.
local log, redo = find_group(KEYS[1], ARGV[1]), find_group(KEYS[2], ARGV[1])
if not log then
  return {}
end
local lag = lag_of(KEYS[1], log, 1000, 262144)
local waiting = redis.call('ZCARD', KEYS[3])
local in_flight = log['pending']
if redo then
  waiting = waiting + lag_of(KEYS[2], redo, 1000, 262144)
  in_flight = in_flight + redo['pending']
end
return {lag, in_flight, waiting, redis.call('XLEN', KEYS[4]), log['consumers']}
