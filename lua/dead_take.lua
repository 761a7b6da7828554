-- Takes dead letters out: back to their group's redo lane, or away.
--
-- What goes back is written before the record is removed. Only one of two who take the same record
-- finds it. The journal counts in the same step, so that it is right however the caller ends.
--
-- A server is busy with nothing else while a script runs, so this makes as few calls as it can: the
-- heads, which never change, the caller has read before, and says by what each is counted.
--
-- KEYS[1]  the group's dead letters' heads, a stream
-- KEYS[2]  their bodies, a hash
-- KEYS[3]  their counts, a hash
-- KEYS[4]  their causes, a hash
-- KEYS[5]  the group's redo lane, a stream
-- KEYS[6]  its journal, a hash
-- ARGV[1]  the operation that counts them, '' for none
-- ARGV[2]  how many dead letters follow
-- then for each dead letter:
-- ITEM[1]  its id
-- ITEM[2]  'away' to remove it for good, 'redo' to bring its body to the redo lane, 'redo-as' to
--          bring something else there
-- ITEM[3]  redo-as: the parcel
-- ITEM[4]  which of the tallies that follow it counts in, from 1; 0 for none
-- then for each tally, as four arguments too: `reason fingerprint`, type, tenant, hours since 1970
--
-- Returns for each dead letter 1, or 0 when it is not there.
local wrong = check_types({'stream', 'hash', 'hash', 'hash', 'stream', 'hash'})
if wrong then
  return wrong
end
local count = tonumber(ARGV[2])
local ids = {}
for n = 1, count do
  ids[n] = ARGV[4 * n - 1]
end
local bodies = redis.call('HMGET', KEYS[2], unpack(ids))
local done, taken, tallies, seen = {}, {}, {}, {}
for n, id in ipairs(ids) do
  -- The same id may be asked for twice in one call.
  local body = not seen[id] and bodies[n]
  seen[id] = true
  done[n] = body and 1 or 0
  if body then
    local at = 4 * n - 1
    if ARGV[at + 1] == 'redo' then
      redis.call('XADD', KEYS[5], '*', 'dead', body, 'by', ARGV[1])
    elseif ARGV[at + 1] == 'redo-as' then
      redis.call('XADD', KEYS[5], '*', 'parcel', ARGV[at + 2])
    end
    taken[#taken + 1] = id
    local tally = tonumber(ARGV[at + 3])
    tallies[tally] = (tallies[tally] or 0) + 1
  end
end
if taken[1] then
  redis.call('XDEL', KEYS[1], unpack(taken))
  redis.call('HDEL', KEYS[2], unpack(taken))
  for tally, by in pairs(tallies) do
    if tally > 0 then
      local at = 4 * (count + tally) - 1
      note(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], -by)
    end
  end
  count_dead(KEYS[3], KEYS[4])
end
-- An operation that the journal has no more room for is not begun anew.
if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[6], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[6], ARGV[1] .. ':taken', #taken)
  redis.call('HSET', KEYS[6], ARGV[1] .. ':cursor', ids[count])
end
return done
