-- Appends due messages for later to the topic's log.
--
-- KEYS[1]  the topic's messages for later by due time, a sorted set or absent
-- KEYS[2]  their bodies, a hash or absent
-- KEYS[3]  the log, a stream or absent
-- ARGV[1]  how many to append at most
--
-- Returns {how many it appended, milliseconds until the next one is due or -1 when there is none, how
-- many had no body: something other than Redstart removed it}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local moved, next, missing = promote_later(KEYS[1], KEYS[2], KEYS[3], ARGV[1], now)
if not moved then
  return next
end
return {moved, next, missing}
