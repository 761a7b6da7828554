-- Puts exported dead letters back into a group, as its newest.
--
-- The export gave each dead letter an identity. The group remembers the identities for good, so a
-- second import adds nothing, even after a redrive of the first import's dead letters.
--
-- KEYS[1]  the heads of the group's dead letters, a stream
-- KEYS[2]  their bodies, a hash
-- KEYS[3]  their counts, a hash
-- KEYS[4]  their causes, a hash
-- KEYS[5]  the restored identities, a hash
-- ARGV[1]  '1' to restore again what an earlier call restored, '0' to skip it
-- then for each dead letter:
-- ITEM[1]  its identity
-- ITEM[2]  the id that it has in this group, '' when it comes from another group
-- ITEM[3]  its head
-- ITEM[4]  its body
--
-- Returns for each dead letter its new id, '' when the group has it, or 'gone' when an earlier call
-- restored it and it left the group since.
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
  if here then
    ids[#ids + 1] = ''
  elseif known and ARGV[1] == '0' then
    ids[#ids + 1] = 'gone'
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
