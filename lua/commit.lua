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
-- then, word by word, each commit: 'log' or 'redo', the entry's id, 'ack' or 'keep', 'held' or
-- 'only-copy' (commits where nobody holds the delivery, too), the number of effects, the effects
-- ITEM[1]  a word
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

local commits, counts, at, failed = {}, {log = 0, redo = 0}, 9, nil
while at <= #ARGV do
  local lane, id = ARGV[at], ARGV[at + 1]
  local effects, next_at = read_effects(at + 5, tonumber(ARGV[at + 4]))
  if not streams[lane] or not effects then
    return redis.error_reply('ERR not a commit at argument ' .. at)
  end
  commits[#commits + 1] = {lane = lane, id = id, acknowledges = ARGV[at + 2] == 'ack',
    only_copy = ARGV[at + 3] == 'only-copy', effects = effects}
  counts[lane] = counts[lane] + 1
  failed = counts[lane] == 1 and denied('XACK', streams[lane], group, id) or denied_effects(effects)
  if failed then
    return failed
  end
  at = next_at
end
failed = denied('SET', KEYS[3], 'a', 'PX', '1')
if failed then
  return failed
end

-- One XPENDING over the range of the ids finds most of those that the consumer holds.
local holders = {log = {}, redo = {}}
for lane, key in pairs(streams) do
  local first = lane == 'log' and 5 or 7
  if counts[lane] > 1 then
    local rows = redis.pcall('XPENDING', key, group, ARGV[first], ARGV[first + 1], 2 * counts[lane],
      consumer)
    for _, row in ipairs(rows) do
      holders[lane][row[1]] = 1
    end
  end
end
for _, commit in ipairs(commits) do
  local found = holders[commit.lane]
  if not found[commit.id] then
    local holder, unknown = holder_of(streams[commit.lane], group, consumer, commit.id)
    if not holder then
      return unknown
    end
    found[commit.id] = holder
  end
end

local now, lines, acks = now_in_millis(), {}, {log = {}, redo = {}}
for n, commit in ipairs(commits) do
  local found = holders[commit.lane]
  local holder = found[commit.id]
  if holder ~= 1 and not (commit.only_copy and holder == -1) then
    lines[n] = holder == -1 and 'not-held' or 'lost'
  else
    local line, refused = commit_effects(commit.effects, now)
    if not line then
      return refused
    end
    lines[n] = line
    local ends = line == 'skipped' or string.sub(line, 1, 4) == 'done'
    if ends and commit.acknowledges then
      -- A delivery ends once, however often the caller passed it.
      found[commit.id] = 0
      acks[commit.lane][#acks[commit.lane] + 1] = commit.id
    end
  end
end
local reply = table.concat(lines, '\n')
-- Before the acknowledgements: memory can refuse it where no commit has written anything.
local _, refused = write('SET', KEYS[3], ARGV[1] .. ' ' .. reply, 'PX', ARGV[2])
if refused then
  return refused
end
for lane, key in pairs(streams) do
  if #acks[lane] > 0 then
    redis.call('XACK', key, group, unpack(acks[lane]))
  end
end
return reply
