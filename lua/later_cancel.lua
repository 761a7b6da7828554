-- Removes messages for later before their time.
--
-- KEYS[1]  the topic's messages for later by due time, a sorted set or absent
-- KEYS[2]  their bodies, a hash or absent
-- then for each message:
-- ITEM[1]  its id
--
-- Returns for each message 1, or 0 when it is not scheduled.
local wrong = check_types({'zset', 'hash'})
if wrong then
  return wrong
end
local done = {}
for at, id in ipairs(ARGV) do
  done[at] = redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
return done
