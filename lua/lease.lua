-- Extends or releases the leases of deliveries that the consumer still owns, or marks their attempts
-- as begun.
--
-- XCLAIM checks no owner, so the script does. A released delivery gets an idle time longer than any
-- lease: the next claim takes it at once. JUSTID keeps the delivery count from rising. Redis counts
-- hand-outs; here the delivery count is a mark of the attempts that were begun:
--
--   0  none: released before its first attempt
--   1  XREADGROUP handed it out, and nothing was marked since: none or one
--   1000001  one attempt
--   n  n attempts, for n of 2 and more
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3]  'extend', 'release' or 'begin'
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
local group, consumer = ARGV[1], ARGV[2]
local function held_by_consumer(claimed)
  return #claimed == 1 and 1 or 2
end
local done = {}
for at = 4, #ARGV, 3 do
  local key, id = ARGV[at] == 'log' and KEYS[1] or KEYS[2], ARGV[at + 1]
  local holder, pending = holder_of(key, group, consumer, id)
  if not holder then
    return pending
  end
  if holder ~= 1 then
    done[#done + 1] = holder
  elseif ARGV[3] == 'extend' then
    -- XCLAIM drops an entry that something else deleted from the stream, and returns nothing for it.
    done[#done + 1] = held_by_consumer(redis.call('XCLAIM', key, group, consumer, 0, id, 'JUSTID'))
  elseif ARGV[3] == 'begin' then
    done[#done + 1] = held_by_consumer(redis.call('XCLAIM', key, group, consumer, 0, id, 'RETRYCOUNT',
      ARGV[at + 2], 'JUSTID'))
  elseif ARGV[3] == 'release' then
    local mark = ARGV[at + 2]
    if mark == '' then
      mark = pending[4] == 1 and 0 or pending[4]
    end
    -- About three years: the time of delivery stays after 1970, as Redis demands.
    done[#done + 1] = held_by_consumer(redis.call('XCLAIM', key, group, consumer, 0, id, 'IDLE',
      '100000000000', 'RETRYCOUNT', mark, 'JUSTID'))
  else
    return redis.error_reply('ERR unknown action ' .. ARGV[3])
  end
end
return done
