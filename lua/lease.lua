-- Extends or releases the leases of deliveries that the consumer still owns, or marks their attempts
-- as begun or failed.
--
-- XCLAIM checks no owner, so the script does. A released delivery gets an idle time longer than any
-- lease: the next claim takes it at once. JUSTID keeps the delivery count from rising. Redis counts
-- hand-outs; here the delivery count is a mark of the attempts that were begun, and of those among
-- them whose failure was noted:
--
--   0  none: released before its first attempt
--   1  XREADGROUP handed it out, and nothing was marked since: none or one
--   1000001  one attempt
--   n  n attempts, for n of 2 and more
--   (m + 1) * 1000000 + n  n attempts, of which m have failed
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3]  'extend', 'release' or 'begin'
-- ARGV[4]  the smallest id of the log's deliveries, or ''
-- ARGV[5]  the greatest
-- ARGV[6]  the smallest id of the redelivery stream's deliveries, or ''
-- ARGV[7]  the greatest
-- then for each delivery:
-- ITEM[1]  'log' or 'redo', the stream of the entry
-- ITEM[2]  the entry's id
-- ITEM[3]  begin: the mark; release: the mark, or '' to turn 1 into 0 and keep any other; extend: ''
--
-- Returns for each delivery a number that says who holds it:
--
--   1   the consumer
--   2   the consumer until now; the entry is gone from its stream, and Redis has dropped the
--       delivery with this call
--   0   another consumer, or the group is gone
--   -1  nobody
local wrong = check_types({'stream', 'stream'})
if wrong then
  return wrong
end
local group, consumer, action = ARGV[1], ARGV[2], ARGV[3]
if action ~= 'extend' and action ~= 'begin' and action ~= 'release' then
  return redis.error_reply('ERR unknown action ' .. action)
end
local streams, ids = {log = KEYS[1], redo = KEYS[2]}, {log = {}, redo = {}}
for at = 8, #ARGV, 3 do
  local lane = ids[ARGV[at]]
  if not lane then
    return redis.error_reply('ERR unknown stream ' .. ARGV[at])
  end
  lane[#lane + 1] = ARGV[at + 1]
end
local holders, counts = {}, {}
for lane, key in pairs(streams) do
  local range = lane == 'log' and 4 or 6
  local found, found_counts = holders_of(key, group, consumer, ids[lane], ARGV[range], ARGV[range + 1])
  if not found then
    return found_counts
  end
  holders[lane], counts[lane] = found, found_counts
end

-- One XCLAIM changes all deliveries of a stream that get the same mark.
local claims, claim_of = {}, {log = {}, redo = {}}
for at = 8, #ARGV, 3 do
  local lane, id, mark = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if holders[lane][id] == 1 then
    if action == 'release' and mark == '' then
      mark = counts[lane][id] == 1 and 0 or counts[lane][id]
    end
    local claim = claim_of[lane][mark]
    if not claim then
      claim = {lane = lane, mark = mark, words = {streams[lane], group, consumer, 0}}
      claim_of[lane][mark], claims[#claims + 1] = claim, claim
    end
    claim.words[#claim.words + 1] = id
  end
end
-- XCLAIM drops an entry that something else deleted from the stream, and returns nothing for it.
local kept = {log = {}, redo = {}}
for _, claim in ipairs(claims) do
  local words = claim.words
  if action == 'release' then
    -- About three years: the time of delivery stays after 1970, as Redis demands.
    words[#words + 1], words[#words + 2] = 'IDLE', '100000000000'
  end
  if action ~= 'extend' then
    words[#words + 1], words[#words + 2] = 'RETRYCOUNT', claim.mark
  end
  words[#words + 1] = 'JUSTID'
  for _, id in ipairs(redis.call('XCLAIM', unpack(words))) do
    kept[claim.lane][id] = true
  end
end
local done = {}
for at = 8, #ARGV, 3 do
  local lane, id = ARGV[at], ARGV[at + 1]
  local holder = holders[lane][id]
  done[#done + 1] = holder == 1 and not kept[lane][id] and 2 or holder
end
return done
