-- Puts dead letters in that were exported, as the newest of a group.
--
-- Each has an identity that was given where it was exported. It is remembered for good: a second
-- import adds nothing, also when what the first one added was redriven meanwhile.
--
-- KEYS[1]  the group's dead letters' heads, a stream
-- KEYS[2]  their bodies, a hash
-- KEYS[3]  their counts, a hash
-- KEYS[4]  their causes, a hash
-- KEYS[5]  the identities that were put in, a hash
-- ARGV[1]  '1' to put in also what was put in before, '0' not to
-- then for each dead letter:
-- ITEM[1]  its identity
-- ITEM[2]  the id that it has if it came from this group, '' if it did not
-- ITEM[3]  its head
-- ITEM[4]  its body
--
-- Returns for each dead letter its id, or '' when it is there already or was put in before.
local wrong = check_types({'stream', 'hash', 'hash', 'hash', 'hash'})
if wrong then
  return wrong
end
local ids = {}
for at = 2, #ARGV, 4 do
  local identity, own, head, body = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local known = redis.call('HGET', KEYS[5], identity)
  local here = own ~= '' and redis.call('HGET', KEYS[2], own) == body
    or known and redis.call('HEXISTS', KEYS[2], known) == 1
  local before = ARGV[1] == '0' and known
  if here or before then
    ids[#ids + 1] = ''
  else
    local id = redis.call('XADD', KEYS[1], '*', 'head', head)
    redis.call('HSET', KEYS[2], id, body)
    redis.call('HSET', KEYS[5], identity, id)
    note_dead(head, id)
    ids[#ids + 1] = id
  end
end
count_dead(KEYS[3], KEYS[4])
return ids
