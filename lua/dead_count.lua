-- Subtracts from a group's counts of dead letters what was taken out and still counts.
--
-- The caller has added up what several callers of dead_take.lua have left. It is subtracted where all of
-- it is as it was, so that it is subtracted once, whoever else is about to do the same or adds to it.
--
-- KEYS[1]  what was taken out and still counts, a hash
-- KEYS[2]  the counts, a hash
-- KEYS[3]  the causes, a hash
-- ARGV[1]  how many fields of the first hash follow
-- ARGV[2]  how many counts follow those; the rest are causes
-- then for each:
-- ITEM[1]  its name
-- ITEM[2]  of a field: what it was; of a count or a cause: what to add to it, a negative number
--
-- Returns 1, or 0 when some of it is not as it was.
local wrong = check_types({'hash', 'hash', 'hash'})
if wrong then
  return wrong
end
local last = 2 + 2 * ARGV[1]
local fields = {}
for at = 3, last, 2 do
  -- Whoever has written it may have added to it.
  if redis.call('HGET', KEYS[1], ARGV[at]) ~= ARGV[at + 1] then
    return 0
  end
  fields[#fields + 1] = ARGV[at]
end
local counts = last + 2 * ARGV[2]
for at = last + 1, counts, 2 do
  if add(KEYS[2], ARGV[at], ARGV[at + 1]) <= 0 then
    redis.call('HDEL', KEYS[2], ARGV[at])
  end
end
for at = counts + 1, #ARGV, 2 do
  local cause = ARGV[at]
  if add(KEYS[3], 'n ' .. cause, ARGV[at + 1]) <= 0 then
    redis.call('HDEL', KEYS[3], 'n ' .. cause, 'f ' .. cause, 'l ' .. cause)
  end
end
redis.call('HDEL', KEYS[1], unpack(fields))
return 1
