-- Ends deliveries of an owned partition with their effects, under the token of the partition's owner:
-- writes messages and values and marks the deliveries as settled.
--
-- Each commit is written as a whole or not at all; lib/effects.lua says how. The marks and the session
-- follow the last commit. A mark counts as settled until a step of the owner has moved the cursor over it.
-- A call that is repeated with the same number gets the answer of the first and writes nothing.
--
-- KEYS[1]  the cursor, a hash or absent
-- KEYS[2]  the notes of unsettled messages and the marks of settled ones, a hash or absent
-- KEYS[3]  the consumer's session: the number of its last call and the answer
-- then every key that an effect names
-- ARGV[1]  the number of the call
-- ARGV[2]  how long the session lives, in milliseconds
-- ARGV[3]  the owner
-- ARGV[4]  its token
-- then each commit, as lib/commits.lua reads it
-- ITEM[1]  an argument of a commit
--
-- Returns a line for each commit, as commit.lua does: 'lost' where another member has taken the cursor,
-- and where the delivery is settled.
local wrong = check_types({'hash', 'hash'})
if wrong then
  return wrong
end
local answer, stale = answer_in(KEYS[3], ARGV[1])
if answer or stale then
  return answer or stale
end
local count, failed = read_commits(5, function(lane, id)
  return denied('HSET', KEYS[2], lane .. ':' .. id, 'done')
end)
failed = failed or session_problem(KEYS[3], ARGV[2])
if failed then
  return failed
end

local lines = {}
local cursor = redis.call('HMGET', KEYS[1], 'token', 'owner', 'log:low', 'log:done', 'redo:low', 'redo:done')
if cursor[1] ~= ARGV[4] or cursor[2] ~= ARGV[3] then
  for n = 1, count do
    lines[n] = 'lost'
  end
  return table.concat(lines, '\n')
end

-- The parts of an id are exact: both lie below 2^53.
local function is_at_most(id, other)
  local millis, number = string.match(id, '^(%d+)%-(%d+)$')
  local other_millis, other_number = string.match(other, '^(%d+)%-(%d+)$')
  millis, other_millis = tonumber(millis), tonumber(other_millis)
  return millis < other_millis or millis == other_millis and tonumber(number) <= tonumber(other_number)
end

-- Whether a step has settled an entry.
local function is_done(lane, id)
  local at = lane == 'log' and 3 or 5
  if cursor[at] and is_at_most(id, cursor[at]) then
    return true
  end
  for first, last in string.gmatch(cursor[at + 1] or '', '([%d-]+)%.%.([%d-]+)') do
    if is_at_most(first, id) and is_at_most(id, last) then
      return true
    end
  end
  return false
end

local messages, marks = {}, {}
for n = 1, count do
  messages[n] = head_of[n].lane .. ':' .. id_of[n]
end
local notes = redis.call('HMGET', KEYS[2], unpack(messages))
local ended, now = {}, now_in_millis()
for n = 1, count do
  local head, message = head_of[n], messages[n]
  if ended[message] or notes[n] == 'done' or is_done(head.lane, id_of[n]) then
    lines[n] = 'lost'
  else
    local line, refused = commit_effects(n, now)
    if not line then
      return refused
    end
    lines[n] = line
    if head.acknowledges and has_ended(line) then
      -- A delivery ends once, however often the caller passed it.
      ended[message] = true
      marks[#marks + 1], marks[#marks + 2] = message, 'done'
    end
  end
end
if #marks > 0 then
  -- Memory can refuse it where no commit has written anything.
  local _, refused = write('HSET', KEYS[2], unpack(marks))
  if refused then
    return refused
  end
end
return (answered(KEYS[3], ARGV[1], ARGV[2], lines))
