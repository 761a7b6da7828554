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
-- KEYS[5]  its dead letters, a stream
-- KEYS[6]  its dead letters' counts, a hash
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- then for each delivery:
-- ITEM[1]  'log' or 'redo'
-- ITEM[2]  the entry's id
-- ITEM[3]  'later' or the reason of death
-- ITEM[4]  later: the delay in milliseconds; dead: the fingerprint
-- ITEM[5]  later: the parcel; dead: the record's body
-- ITEM[6]  dead: the envelope's type
-- ITEM[7]  dead: the tenant
--
-- Returns for each delivery 1, or 0 when the consumer does not hold it (nothing was written).
-- A key of another type is found before anything is written, and stops only what needs it.
local types = {'stream', 'stream'}
for at = 3, #ARGV, 7 do
  if ARGV[at + 2] == 'later' then
    types[3], types[4] = 'zset', 'hash'
  else
    types[5], types[6] = 'stream', 'hash'
  end
end
for at, kind in pairs(types) do
  local held = redis.call('TYPE', KEYS[at]).ok
  if held ~= 'none' and held ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. held .. ', not a ' .. kind)
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local group, consumer = ARGV[1], ARGV[2]
local done = {}
for at = 3, #ARGV, 7 do
  local lane, id, what = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local key = lane == 'log' and KEYS[1] or KEYS[2]
  local held = redis.pcall('XPENDING', key, group, id, id, 1)
  if held.err and string.sub(held.err, 1, 7) ~= 'NOGROUP' then
    return held
  end
  if held.err or not held[1] or held[1][2] ~= consumer then
    done[#done + 1] = 0
  else
    if what == 'later' then
      local member = lane .. ':' .. id
      redis.call('HSET', KEYS[4], member, ARGV[at + 4])
      redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[at + 3]), member)
    else
      redis.call('XADD', KEYS[5], '*', 'reason', what, 'fingerprint', ARGV[at + 3],
        'type', ARGV[at + 5], 'tenant', ARGV[at + 6], 'record', ARGV[at + 4])
      redis.call('HINCRBY', KEYS[6], 'reason:' .. what, 1)
      redis.call('HINCRBY', KEYS[6], 'fingerprint:' .. ARGV[at + 3], 1)
      redis.call('HINCRBY', KEYS[6], 'type:' .. ARGV[at + 5], 1)
      redis.call('HINCRBY', KEYS[6], 'tenant:' .. ARGV[at + 6], 1)
    end
    redis.call('XACK', key, group, id)
    done[#done + 1] = 1
  end
end
return done
