-- Changes when a message for later is due.
--
-- KEYS[1]  the topic's messages for later by due time, a sorted set or absent
-- KEYS[2]  the bell of the messages for later, a stream or absent
-- ARGV[1]  the message's id
-- ARGV[2]  'at' or 'after'
-- ARGV[3]  the due time, or the delay, in milliseconds
--
-- Returns {the time in milliseconds, the new due time}, or an empty list when it is not scheduled.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = tonumber(ARGV[3]) + (ARGV[2] == 'after' and now or 0)
redis.call('ZADD', KEYS[1], string.format('%.0f', due), ARGV[1])
ring_if_near(KEYS[2], due, now)
return {string.format('%.0f', now), string.format('%.0f', due)}
