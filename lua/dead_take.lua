-- Takes dead letters out: back to their group's redo lane, or away; all that it is given, or none.
--
-- What goes back is written before the record is removed. Only one of two who take the same record
-- finds it. The journal counts in the same step, so that it is right however the caller ends.
--
-- A server is busy with nothing else while a script runs, so this does as little as it can: the
-- heads, which never change, the caller has read before, and has added up what they are counted by.
-- That is written as it is, with what the caller has taken out before; dead_count.lua subtracts it, for
-- many calls at once. It holds for all that a call is given, which is why none is taken where one is
-- not there.
--
-- KEYS[1]  the group's dead letters' heads, a stream
-- KEYS[2]  their bodies, a hash
-- KEYS[3]  what was taken out and still counts, a hash
-- KEYS[4]  the group's redo lane, a stream
-- KEYS[5]  its journal, a hash
-- ARGV[1]  the operation that counts them, '' for none
-- ARGV[2]  'away' to remove them for good, 'redo' to bring their bodies to the redo lane, 'redo-as' to
--          bring something else there
-- ARGV[3]  the caller's field among what still counts
-- ARGV[4]  '1' where the caller has written it before, '0' where not
-- ARGV[5]  what it is then
-- then for each dead letter, each of which is another:
-- ITEM[1]  its id
-- ITEM[2]  redo-as: the parcel
--
-- Returns nothing when they were taken; 0 when the field that was written before is gone, because
-- another has subtracted it; otherwise for each dead letter 1 when it is there and 0 when not.
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
  if ARGV[2] == 'redo' then
    redis.call('XADD', KEYS[4], '*', 'dead', bodies[n], 'by', ARGV[1])
  elseif ARGV[2] == 'redo-as' then
    redis.call('XADD', KEYS[4], '*', 'parcel', ARGV[5 + 2 * n])
  end
end
redis.call('XDEL', KEYS[1], unpack(ids))
redis.call('HDEL', KEYS[2], unpack(ids))
redis.call('HSET', KEYS[3], ARGV[3], ARGV[5])
-- An operation that the journal has no more room for is not begun anew.
if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[5], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[5], ARGV[1] .. ':taken', #ids)
  redis.call('HSET', KEYS[5], ARGV[1] .. ':cursor', ids[#ids])
end
return nil
