-- Writes how far the owner of a partition has come, under its token: what is settled, what may have begun,
-- and the retries, dead letters and notes that belong to it.
--
-- The writes that Redis can refuse for memory come first. A step without retries, dead letters and messages
-- that have just failed begins with a write that needs no memory. So the group goes on settling, and marks the
-- attempts that begin, while the server's memory is full.
--
-- KEYS[1]   the log, a stream
-- KEYS[2]   the group's redelivery stream
-- KEYS[3]   the cursor, a hash
-- KEYS[4]   the notes of unsettled messages, a hash or absent
-- KEYS[5]   the group's retries by due time, a sorted set
-- KEYS[6]   the redeliveries of these retries, a hash
-- KEYS[7]   the heads of its dead letters, a stream
-- KEYS[8]   their bodies, a hash
-- KEYS[9]   their counts, a hash
-- KEYS[10]  their causes, a hash
-- ARGV[1]  the group
-- ARGV[2]  the owner
-- ARGV[3]  its token
-- ARGV[4]  the number of the step
-- ARGV[5]  the log: every entry up to this id is settled; '' where the log's cursor stays as it is
-- ARGV[6]  no entry after this id has begun
-- ARGV[7]  the ranges of settled entries between
-- ARGV[8]  how many entries the first id has passed
-- ARGV[9]  the same four of the redelivery stream
-- ARGV[10]  its second
-- ARGV[11]  its third
-- ARGV[12]  its fourth
-- then for each retry, dead letter, note, or end of a note or mark:
-- ITEM[1]  'reschedule', 'dead-letter', 'note' or 'forget'
-- ITEM[2]  the message: 'log' or 'redo', a colon, the entry's id
-- ITEM[3]  reschedule: the delay in milliseconds, '0' for none; dead-letter: the head; note: the attempts
--          begun, a colon, those failed; forget: ''
-- ITEM[4]  reschedule: the redelivery; dead-letter: the body; note: how long the message waits in
--          milliseconds, '' for a note of attempts alone; forget: ''
-- ITEM[5]  note: the message as it comes back; otherwise ''
--
-- Returns 1 when the step is done, also by an earlier call; 0 when another member has taken the cursor, and
-- when the step before this one is missing; -1 when there is no such cursor.
local stored = redis.call('HMGET', KEYS[3], 'token', 'owner', 'number', 'log:low', 'redo:low', 'log:read',
  'redo:read')
if not stored[1] then
  return -1
end
if stored[1] ~= ARGV[3] or stored[2] ~= ARGV[2] then
  return 0
end
local number, last = tonumber(ARGV[4]), tonumber(stored[3] or '0')
if number == last then
  return 1
elseif number ~= last + 1 then
  -- A failover has lost steps: the owner believes settled what the store does not have.
  return 0
end
if #ARGV > 12 then
  local wrong = check_types({'stream', 'stream', 'hash', 'hash', 'zset', 'hash', 'stream', 'hash', 'hash', 'hash'})
  if wrong then
    return wrong
  end
  for lane = 1, 2 do
    local group = redis.pcall('XPENDING', KEYS[lane], ARGV[1])
    if group.err then
      return string.sub(group.err, 1, 7) == 'NOGROUP' and -1 or group
    end
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local bodies, dues, dead_bodies, notes, forgets = {}, {}, {}, {}, {}
local grows = false
for at = 13, #ARGV, 5 do
  local kind, delay = ARGV[at], ARGV[at + 3]
  grows = grows or kind == 'reschedule' or kind == 'dead-letter'
    or kind == 'note' and delay ~= '' and delay ~= '0'
end
if not grows then
  -- Redis then does not refuse the next write either.
  redis.call('HDEL', KEYS[3], 'number')
end
for at = 13, #ARGV, 5 do
  local kind, message = ARGV[at], ARGV[at + 1]
  if kind == 'reschedule' and ARGV[at + 2] == '0' then
    redis.call('XADD', KEYS[2], '*', 'parcel', ARGV[at + 3])
  elseif kind == 'reschedule' then
    bodies[#bodies + 1], bodies[#bodies + 2] = message, ARGV[at + 3]
    dues[#dues + 1], dues[#dues + 2] = now + ARGV[at + 2], message
  elseif kind == 'dead-letter' then
    local dead = redis.call('XADD', KEYS[7], '*', 'head', ARGV[at + 2])
    dead_bodies[#dead_bodies + 1], dead_bodies[#dead_bodies + 2] = dead, ARGV[at + 3]
    note_dead(ARGV[at + 2], dead)
  elseif kind == 'note' then
    local due = ARGV[at + 3] ~= '' and string.format('%.0f', now + ARGV[at + 3]) or ''
    notes[#notes + 1], notes[#notes + 2] = message, ARGV[at + 2] .. ':' .. due .. ':' .. ARGV[at + 4]
  else
    forgets[#forgets + 1] = message
  end
end
if #bodies > 0 then
  redis.call('HSET', KEYS[6], unpack(bodies))
  redis.call('ZADD', KEYS[5], unpack(dues))
end
if #dead_bodies > 0 then
  redis.call('HSET', KEYS[8], unpack(dead_bodies))
end
count_dead(KEYS[9], KEYS[10])
if #notes > 0 then
  redis.call('HSET', KEYS[4], unpack(notes))
end

local fields = {'number', ARGV[4]}
for lane = 1, 2 do
  local at, name = 1 + 4 * lane, lane == 1 and 'log' or 'redo'
  local low = ARGV[at]
  if low ~= '' then
    if low ~= stored[3 + lane] then
      local move = {'XGROUP', 'SETID', KEYS[lane], ARGV[1], low}
      local read = tonumber(stored[5 + lane] or '')
      if read then
        read = read + ARGV[at + 3]
      else
        -- After a reset to where counting was dear, the end of the stream is the next place that Redis knows.
        local stream = named(redis.pcall('XINFO', 'STREAM', KEYS[lane]))
        read = low == stream['last-generated-id'] and stream['entries-added']
      end
      if read then
        read = string.format('%.0f', read)
        move[6], move[7] = 'ENTRIESREAD', read
        fields[#fields + 1], fields[#fields + 2] = name .. ':read', read
      end
      redis.call(unpack(move))
    end
    for part, field in ipairs({':low', ':high', ':done'}) do
      fields[#fields + 1], fields[#fields + 2] = name .. field, ARGV[at + part - 1]
    end
  end
end
redis.call('HSET', KEYS[3], unpack(fields))
if #forgets > 0 then
  redis.call('HDEL', KEYS[4], unpack(forgets))
end
return 1
