-- Ends deliveries by a retry, a snooze or a burial, where the consumer still holds them.
--
-- What is to be kept is written before the entry is acknowledged, and what can be refused for
-- memory comes first: Redis does not roll a script back, but after its first write it refuses none of
-- the others.
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
-- ITEM[4]  later: the delay in milliseconds, 0 for none; bury: the head
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
local streams = {log = KEYS[1], redo = KEYS[2]}

-- Which ids of a lane the consumer holds. One look at what lies between the first and the last finds
-- most of many; whatever it does not find is looked up by itself, so that nothing depends on it.
local function held(key, ids)
  local found = {}
  if #ids >= 32 then
    local rows = redis.pcall('XPENDING', key, group, ids[1], ids[#ids], 2 * #ids, consumer)
    for _, row in ipairs(rows) do
      found[row[1]] = true
    end
  end
  for _, id in ipairs(ids) do
    if not found[id] then
      local rows = redis.pcall('XPENDING', key, group, id, id, 1)
      if rows.err and string.sub(rows.err, 1, 7) ~= 'NOGROUP' then
        return nil, rows
      end
      found[id] = not rows.err and rows[1] and rows[1][2] == consumer
    end
  end
  return found
end

local ids, holds = {log = {}, redo = {}}, {}
for at = 3, #ARGV, 5 do
  local lane = ids[ARGV[at]]
  lane[#lane + 1] = ARGV[at + 1]
end
for lane, key in pairs(streams) do
  local found, failed = held(key, ids[lane])
  if failed then
    return failed
  end
  holds[lane] = found
end

-- What many write goes into one command: a call from a script costs more than most commands do.
local bodies, dues, graves, acks = {}, {}, {}, {log = {}, redo = {}}
local done = {}
for at = 3, #ARGV, 5 do
  local lane, id = ARGV[at], ARGV[at + 1]
  if not holds[lane][id] then
    done[#done + 1] = 0
  else
    -- What ends here ends once, however often it was passed.
    holds[lane][id] = false
    if ARGV[at + 2] == 'later' and ARGV[at + 3] == '0' then
      redis.call('XADD', KEYS[2], '*', 'parcel', ARGV[at + 4])
    elseif ARGV[at + 2] == 'later' then
      local member = lane .. ':' .. id
      bodies[#bodies + 1], bodies[#bodies + 2] = member, ARGV[at + 4]
      dues[#dues + 1], dues[#dues + 2] = now + ARGV[at + 3], member
    else
      local dead = redis.call('XADD', KEYS[5], '*', 'head', ARGV[at + 3])
      graves[#graves + 1], graves[#graves + 2] = dead, ARGV[at + 4]
      note_dead(ARGV[at + 3], dead)
    end
    acks[lane][#acks[lane] + 1] = id
    done[#done + 1] = 1
  end
end
if #bodies > 0 then
  redis.call('HSET', KEYS[4], unpack(bodies))
  redis.call('ZADD', KEYS[3], unpack(dues))
end
if #graves > 0 then
  redis.call('HSET', KEYS[6], unpack(graves))
end
count_dead(KEYS[7], KEYS[8])
for lane, key in pairs(streams) do
  if #acks[lane] > 0 then
    redis.call('XACK', key, group, unpack(acks[lane]))
  end
end
return done
