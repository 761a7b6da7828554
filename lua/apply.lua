-- Writes effects without a delivery, each list as a whole or not at all; lib/effects.lua says how.
--
-- A call that is repeated with the same number gets the answer of the first and writes nothing.
--
-- KEYS[1]  the session: the number of its last call and the answer
-- then every key that an effect names
-- ARGV[1]  the number of the call, or 'dry' to check the effects and to write nothing
-- ARGV[2]  how long the session lives, in milliseconds
-- then, word by word, each list: the number of its effects, the effects
-- ITEM[1]  a word
--
-- Returns a line for each list, as commit.lua does for a commit.
local dry = ARGV[1] == 'dry'
if not dry then
  local answer, stale = answer_in(KEYS[1], ARGV[1])
  if answer or stale then
    return answer or stale
  end
end
local count, at = 0, 3
while at <= #ARGV do
  count = count + 1
  local next_at, failed = read_effects(count, at + 1, tonumber(ARGV[at]))
  if not next_at then
    return failed or redis.error_reply('ERR not a list of effects at argument ' .. at)
  end
  at = next_at
end
local failed = not dry and session_problem(KEYS[1], ARGV[2])
if failed then
  return failed
end
local now, lines = not dry and now_in_millis(), {}
for n = 1, count do
  local line, refused = commit_effects(n, now)
  if not line then
    return refused
  end
  lines[n] = line
end
local reply = table.concat(lines, '\n')
if not dry then
  local _, refused = write('SET', KEYS[1], ARGV[1] .. ' ' .. reply, 'PX', ARGV[2])
  if refused then
    return refused
  end
end
return reply
