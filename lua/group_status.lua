-- Where a group stands, at one moment.
--
-- A message moves between the lanes and the retries: commands one after the other could miss it
-- everywhere.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redo lane, a stream or absent
-- KEYS[3]  its retries by due time, a sorted set or absent
-- KEYS[4]  its dead letters, a stream or absent
-- ARGV[1]  the group
--
-- Returns {lag, delivered and unsettled, retries and redo entries waiting, dead letters, consumers},
-- or nothing when there is no such group. A lag of more than a thousand
-- entries, or of more than 256 KiB, is the most it can be.
local log, redo = find_group(KEYS[1], ARGV[1]), find_group(KEYS[2], ARGV[1])
if not log then
  return {}
end
local lag = lag_of(KEYS[1], log, 1000, 262144)
local waiting = redis.call('ZCARD', KEYS[3])
local held = log['pending']
if redo then
  waiting = waiting + lag_of(KEYS[2], redo, 1000, 262144)
  held = held + redo['pending']
end
return {lag, held, waiting, redis.call('XLEN', KEYS[4]), log['consumers']}
