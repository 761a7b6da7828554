-- Schedules messages for later.
--
-- KEYS[1]  the topic's messages for later by due time, a sorted set or absent
-- KEYS[2]  their bodies, a hash or absent
-- KEYS[3]  the topic's settings, a hash or absent
-- KEYS[4]  the bell of the messages for later, a stream or absent
-- then for each message:
-- ITEM[1]  its id
-- ITEM[2]  'at' or 'after'
-- ITEM[3]  the due time, or the delay, in milliseconds
-- ITEM[4]  'replace', 'keep' to leave a known message of the same id as it is, or 'rewrite' to keep it and
--          write its body once more, so that a wait for replicas covers it
-- ITEM[5]  the name of the field of its entry
-- ITEM[6]  the value of that field
--
-- Returns {the time in milliseconds, then for each message 'new <due>', 'replaced <due>', 'kept <due>',
-- 'full <limit> <partitions>' where the partition keeps as many messages for later as its part of the
-- backlog limit, or 'no-topic'}.
local wrong = check_types({'zset', 'hash', 'hash'})
if wrong then
  return wrong
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local settings = redis.call('HMGET', KEYS[3], 'topic', 'backlogLimit', 'partitions')
-- Each partition has an equal part of the topic's limit.
local partitions = tonumber(settings[3] or '') or 1
local limit = math.ceil((tonumber(settings[2] or '') or math.huge) / partitions)
local count = redis.call('ZCARD', KEYS[1])
local result = {string.format('%.0f', now)}
for at = 1, #ARGV, 6 do
  local id = ARGV[at]
  if not settings[1] then
    result[#result + 1] = 'no-topic'
  elseif count >= limit and not redis.call('ZSCORE', KEYS[1], id) then
    result[#result + 1] = string.format('full %.0f %.0f', limit, partitions)
  else
    local due = tonumber(ARGV[at + 2]) + (ARGV[at + 1] == 'after' and now or 0)
    local when, what = schedule(KEYS[1], KEYS[2], id, due, ARGV[at + 3] ~= 'replace',
      ARGV[at + 4] .. ' ' .. ARGV[at + 5])
    if what == 'new' then
      count = count + 1
    end
    result[#result + 1] = what .. ' ' .. when
    if what ~= 'kept' then
      ring_if_near(KEYS[4], due, now)
    elseif ARGV[at + 3] == 'rewrite' then
      local body = redis.call('HGET', KEYS[2], id)
      if body then
        redis.call('HSET', KEYS[2], id, body)
      end
    end
  end
end
return result
