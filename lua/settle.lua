-- Ends deliveries that the consumer still holds: reschedules them, or dead-letters them.
--
-- The script writes the record before it acknowledges the entry. The writes that Redis can refuse for
-- memory come first: Redis does not roll a script back, but after the first write it refuses no other.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- KEYS[3]  its retries by due time, a sorted set
-- KEYS[4]  the redeliveries of these retries, a hash
-- KEYS[5]  the heads of its dead letters, a stream
-- KEYS[6]  their bodies, a hash
-- KEYS[7]  their counts, a hash
-- KEYS[8]  their causes, a hash
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3]  'held' where the consumer must hold each delivery; 'only-copy' where nobody else may,
--          because the consumer has the only copy of the messages
-- ARGV[4]  the smallest id of the log's deliveries, or ''
-- ARGV[5]  the greatest
-- ARGV[6]  the smallest id of the redelivery stream's deliveries, or ''
-- ARGV[7]  the greatest
-- then for each delivery:
-- ITEM[1]  'log' or 'redo', the stream of the entry
-- ITEM[2]  the entry's id
-- ITEM[3]  'reschedule' or 'dead-letter'
-- ITEM[4]  reschedule: the delay in milliseconds, '0' for none; dead-letter: the head
-- ITEM[5]  reschedule: the redelivery; dead-letter: the body
--
-- Returns for each delivery 1, or who holds it where nothing was written: 0 another consumer, or the
-- group is gone; -1 nobody.
local wrong = check_types({'stream', 'stream', 'zset', 'hash', 'stream', 'hash', 'hash', 'hash'})
if wrong then
  return wrong
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local group, consumer = ARGV[1], ARGV[2]
local streams = {log = KEYS[1], redo = KEYS[2]}

local only_copy = ARGV[3] == 'only-copy'
if not only_copy and ARGV[3] ~= 'held' then
  return redis.error_reply('ERR unknown holder ' .. ARGV[3])
end
local ids, held_by = {log = {}, redo = {}}, {}
for at = 8, #ARGV, 5 do
  local lane, ending = ids[ARGV[at]], ARGV[at + 2]
  if not lane or ending ~= 'reschedule' and ending ~= 'dead-letter' then
    return redis.error_reply('ERR unknown stream or ending ' .. ARGV[at] .. ' ' .. ending)
  end
  lane[#lane + 1] = ARGV[at + 1]
end
for lane, key in pairs(streams) do
  local range = lane == 'log' and 4 or 6
  local found, failed = holders_of(key, group, consumer, ids[lane], ARGV[range], ARGV[range + 1])
  if not found then
    return failed
  end
  held_by[lane] = found
end

-- One command writes the records of many deliveries: a call from a script costs more than most commands.
local bodies, dues, dead_bodies, acks = {}, {}, {}, {log = {}, redo = {}}
local done = {}
for at = 8, #ARGV, 5 do
  local lane, id = ARGV[at], ARGV[at + 1]
  local holder = held_by[lane][id]
  if holder ~= 1 and not (only_copy and holder == -1) then
    done[#done + 1] = holder or -1
  else
    -- A delivery ends once, however often the caller passed it.
    held_by[lane][id] = nil
    if ARGV[at + 2] == 'reschedule' and ARGV[at + 3] == '0' then
      redis.call('XADD', KEYS[2], '*', 'parcel', ARGV[at + 4])
    elseif ARGV[at + 2] == 'reschedule' then
      local member = lane .. ':' .. id
      bodies[#bodies + 1], bodies[#bodies + 2] = member, ARGV[at + 4]
      dues[#dues + 1], dues[#dues + 2] = now + ARGV[at + 3], member
    else
      local dead = redis.call('XADD', KEYS[5], '*', 'head', ARGV[at + 3])
      dead_bodies[#dead_bodies + 1], dead_bodies[#dead_bodies + 2] = dead, ARGV[at + 4]
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
if #dead_bodies > 0 then
  redis.call('HSET', KEYS[6], unpack(dead_bodies))
end
count_dead(KEYS[7], KEYS[8])
for lane, key in pairs(streams) do
  if #acks[lane] > 0 then
    redis.call('XACK', key, group, unpack(acks[lane]))
  end
end
return done
