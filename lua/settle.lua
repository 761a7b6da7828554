-- Ends deliveries by a retry, a snooze or a burial, where the consumer still holds them.
--
-- What is to be kept is written before the entry is acknowledged, and what can be refused for
-- memory comes first: Redis does not roll a script back. A body without a due time, left by a
-- refusal in between, is overwritten when the caller repeats.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redo lane, a stream
-- KEYS[3]  its retries by due time, a sorted set
-- KEYS[4]  its retries' bodies, a hash
-- KEYS[5]  its dead letters' heads, a stream
-- KEYS[6]  its dead letters' bodies, a hash
-- KEYS[7]  their counts, a hash
-- KEYS[8]  their causes, a hash
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- then for each delivery:
-- ITEM[1]  'log' or 'redo'
-- ITEM[2]  the entry's id
-- ITEM[3]  'later' or 'bury'
-- ITEM[4]  later: the delay in milliseconds; bury: the head
-- ITEM[5]  later: the parcel; bury: the body
--
-- Returns for each delivery 1, or 0 when the consumer does not hold it (nothing was written).
local wrong = check_types({'stream', 'stream', 'zset', 'hash', 'stream', 'hash', 'hash', 'hash'})
if wrong then
  return wrong
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local group, consumer = ARGV[1], ARGV[2]
local done = {}
for at = 3, #ARGV, 5 do
  local lane, id = ARGV[at], ARGV[at + 1]
  local key = lane == 'log' and KEYS[1] or KEYS[2]
  local held = redis.pcall('XPENDING', key, group, id, id, 1)
  if held.err and string.sub(held.err, 1, 7) ~= 'NOGROUP' then
    return held
  end
  if held.err or not held[1] or held[1][2] ~= consumer then
    done[#done + 1] = 0
  else
    if ARGV[at + 2] == 'later' then
      local member = lane .. ':' .. id
      redis.call('HSET', KEYS[4], member, ARGV[at + 4])
      redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[at + 3]), member)
    else
      local dead = redis.call('XADD', KEYS[5], '*', 'head', ARGV[at + 3])
      redis.call('HSET', KEYS[6], dead, ARGV[at + 4])
      note_dead(ARGV[at + 3], dead, 1)
    end
    redis.call('XACK', key, group, id)
    done[#done + 1] = 1
  end
end
count_dead(KEYS[7], KEYS[8])
return done
