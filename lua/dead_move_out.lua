-- Removes dead letters: discards them, or sends them back to their group's redelivery stream. It
-- removes all the given ones, or none.
--
-- The script writes the redelivery entry before it removes the record. Of two callers that move the
-- same record out, only one finds it. The journal counts in the same step, so it is right however
-- the caller ends.
--
-- Counting has two phases, because a script blocks the server. The caller has read the heads, which
-- never change, and has added up what all dead letters under its field count. This script stores
-- that sum in the uncounted hash; dead_subtract.lua later subtracts many sums at once. The sum
-- covers all the given dead letters, so the script removes none when one of them is missing.
--
-- KEYS[1]  the heads of the group's dead letters, a stream
-- KEYS[2]  their bodies, a hash
-- KEYS[3]  the uncounted sums, a hash
-- KEYS[4]  the group's redelivery stream
-- KEYS[5]  the group's journal, a hash
-- ARGV[1]  the operation to count them for in the journal, '' for none
-- ARGV[2]  'discard', 'requeue' to send the bodies back, or 'requeue-as' to send the items' redeliveries
-- ARGV[3]  the caller's field in the uncounted hash
-- ARGV[4]  '1' when an earlier call of the caller wrote this field, '0' when none did
-- ARGV[5]  the field's new value: the sum of earlier calls and of this one
-- then for each dead letter, none of them twice:
-- ITEM[1]  its id
-- ITEM[2]  for requeue-as: the redelivery
--
-- Returns one of: nil when all were removed; 0 when the caller's earlier field is gone, because
-- another caller has subtracted it; for each dead letter 1 when it is there and 0 when it is missing.
local wrong = check_types({'stream', 'hash', 'hash', 'stream', 'hash'})
if wrong then
  return wrong
end
if ARGV[4] == '1' and redis.call('HEXISTS', KEYS[3], ARGV[3]) == 0 then
  return 0
end
local ids = {}
for at = 6, #ARGV, 2 do
  ids[#ids + 1] = ARGV[at]
end
local bodies = redis.call('HMGET', KEYS[2], unpack(ids))
local there, all = {}, true
for n = 1, #ids do
  there[n] = bodies[n] and 1 or 0
  all = all and bodies[n]
end
if not all then
  return there
end
for n = 1, #ids do
  if ARGV[2] == 'requeue' then
    redis.call('XADD', KEYS[4], '*', 'dead', bodies[n], 'by', ARGV[1])
  elseif ARGV[2] == 'requeue-as' then
    redis.call('XADD', KEYS[4], '*', 'parcel', ARGV[5 + 2 * n])
  end
end
redis.call('XDEL', KEYS[1], unpack(ids))
redis.call('HDEL', KEYS[2], unpack(ids))
redis.call('HSET', KEYS[3], ARGV[3], ARGV[5])
-- The journal may have dropped the operation as too old: do not create it again.
if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[5], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[5], ARGV[1] .. ':taken', #ids)
  redis.call('HSET', KEYS[5], ARGV[1] .. ':cursor', ids[#ids])
end
return nil
