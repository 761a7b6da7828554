-- Ends deliveries with their effects: writes messages and values and acknowledges the deliveries.
--
-- Each commit is written as a whole or not at all; lib/effects.lua says how. The acknowledgements and
-- the session follow the last commit. A call that is repeated with the same number gets the answer of
-- the first and writes nothing.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- KEYS[3]  the consumer's session: the number of its last call and the answer
-- then every key that an effect names
-- ARGV[1]  the number of the call
-- ARGV[2]  how long the session lives, in milliseconds
-- ARGV[3]  the group
-- ARGV[4]  the consumer
-- ARGV[5]  the smallest id of the log's deliveries, or ''
-- ARGV[6]  the greatest
-- ARGV[7]  the smallest id of the redelivery stream's deliveries, or ''
-- ARGV[8]  the greatest
-- then each commit, as lib/commits.lua reads it
-- ITEM[1]  an argument of a commit
--
-- Returns a line for each commit:
--
--   done <ids>        written; the ids of its messages, '=' before that of a duplicate
--   lost              another consumer holds the delivery, or the group is gone
--   not-held          nobody holds it
--   skipped           the key of a `once` exists; acknowledged, nothing else written
--   differs <n>       the effect n, from 0, demands another value
--   wrong-type <n>, not-an-integer <n>, out-of-range <n>, stream-full <n>, later-full <n>
--                     the effect n cannot be written
local wrong = check_types({'stream', 'stream'})
if wrong then
  return wrong
end
local answer, stale = answer_in(KEYS[3], ARGV[1])
if answer or stale then
  return answer or stale
end
local group, consumer = ARGV[3], ARGV[4]
local streams = {log = KEYS[1], redo = KEYS[2]}

local count, failed = read_commits(9, function(lane, id)
  return denied('XACK', streams[lane], group, id)
end)
failed = failed or session_problem(KEYS[3], ARGV[2])
if failed then
  return failed
end

local holders = {}
for lane, key in pairs(streams) do
  local range = lane == 'log' and 5 or 7
  local found, unknown = holders_of(key, group, consumer, ids[lane], ARGV[range], ARGV[range + 1])
  if not found then
    return unknown
  end
  holders[lane] = found
end

local now, lines, acks = now_in_millis(), {}, {log = {}, redo = {}}
for n = 1, count do
  local head, id = head_of[n], id_of[n]
  local found = holders[head.lane]
  local holder = found[id]
  if holder ~= 1 and not (head.only_copy and holder == -1) then
    lines[n] = holder == -1 and 'not-held' or 'lost'
  else
    local line, refused = commit_effects(n, now)
    if not line then
      return refused
    end
    lines[n] = line
    if head.acknowledges and has_ended(line) then
      -- A delivery ends once, however often the caller passed it.
      found[id] = 0
      local acked = acks[head.lane]
      acked[#acked + 1] = id
    end
  end
end
-- Before the acknowledgements: memory can refuse it where no commit has written anything.
local reply, refused = answered(KEYS[3], ARGV[1], ARGV[2], lines)
if refused then
  return refused
end
for lane, key in pairs(streams) do
  if #acks[lane] > 0 then
    redis.call('XACK', key, group, unpack(acks[lane]))
  end
end
return reply
