-- Takes dead letters out: back to their group's redo lane, or away.
--
-- The parcel is written before the record is removed. Only one of two who take the same record
-- finds it. The journal counts in the same step, so that it is right however the caller ends.
--
-- KEYS[1]  the group's dead letters' heads, a stream
-- KEYS[2]  their bodies, a hash
-- KEYS[3]  their counts, a hash
-- KEYS[4]  their causes, a hash
-- KEYS[5]  the group's redo lane, a stream
-- KEYS[6]  its journal, a hash
-- ARGV[1]  the operation that counts them, '' for none
-- then for each dead letter:
-- ITEM[1]  its id
-- ITEM[2]  'away' to remove it for good, 'redo' to bring its body to the redo lane, 'redo-as' to
--          bring something else there
-- ITEM[3]  redo-as: the parcel
--
-- Returns for each dead letter 1, or 0 when it is not there.
local wrong = check_types({'stream', 'hash', 'hash', 'hash', 'stream', 'hash'})
if wrong then
  return wrong
end
local done, taken = {}, 0
for at = 2, #ARGV, 3 do
  local id, to = ARGV[at], ARGV[at + 1]
  local found = redis.call('XRANGE', KEYS[1], id, id)[1]
  if found then
    if to == 'redo' then
      redis.call('XADD', KEYS[5], '*', 'dead', redis.call('HGET', KEYS[2], id) or '', 'by', ARGV[1])
    elseif to == 'redo-as' then
      redis.call('XADD', KEYS[5], '*', 'parcel', ARGV[at + 2])
    end
    redis.call('XDEL', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
    note_dead(found[2][2], id, -1)
    taken = taken + 1
  end
  done[#done + 1] = found and 1 or 0
end
count_dead(KEYS[3], KEYS[4])
-- An operation that the journal has no more room for is not begun anew.
if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[6], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[6], ARGV[1] .. ':taken', taken)
  redis.call('HSET', KEYS[6], ARGV[1] .. ':cursor', ARGV[#ARGV - 2])
end
return done
