-- Subtracts removed dead letters from a group's counts: the second phase of dead_move_out.lua.
--
-- The caller has read some fields of the uncounted hash and added them up. The script subtracts the
-- sum only if each of these fields still has the value that the caller read. So each field is
-- subtracted once, even when several callers try it or its owner adds to it.
--
-- KEYS[1]  the uncounted sums, a hash
-- KEYS[2]  the counts, a hash
-- KEYS[3]  the causes, a hash
-- ARGV[1]  how many fields of the uncounted hash follow
-- ARGV[2]  how many counts follow the fields; the remaining items are causes
-- then for each field, count and cause:
-- ITEM[1]  its name
-- ITEM[2]  for a field: the value that the caller read; for a count or a cause: the negative number to add
--
-- Returns 1 when the sum was subtracted, 0 when one of the fields has changed or is gone.
local wrong = check_types({'hash', 'hash', 'hash'})
if wrong then
  return wrong
end
local last = 2 + 2 * ARGV[1]
local fields = {}
for at = 3, last, 2 do
  -- The field's owner may have added to it since.
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
