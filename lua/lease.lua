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
-- Returns for each delivery 1, or 0 when the consumer does not own it.
-- Check every key's type before the first write: Redis does not roll a script back.
for at, kind in pairs({'stream', 'stream'}) do
  local found = redis.call('TYPE', KEYS[at]).ok
  if found ~= 'none' and found ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. found .. ', not a ' .. kind)
  end
end
local group, consumer = ARGV[1], ARGV[2]
local done = {}
for at = 4, #ARGV, 3 do
  local key, id = ARGV[at] == 'log' and KEYS[1] or KEYS[2], ARGV[at + 1]
  local pending = redis.pcall('XPENDING', key, group, id, id, 1)
  if pending.err and string.sub(pending.err, 1, 7) ~= 'NOGROUP' then
    return pending
  end
  if pending.err or not pending[1] or pending[1][2] ~= consumer then
    done[#done + 1] = 0
  elseif ARGV[3] == 'extend' then
    -- XCLAIM drops an entry that something else deleted from the stream, and returns nothing for it.
    done[#done + 1] = #redis.call('XCLAIM', key, group, consumer, 0, id, 'JUSTID')
  elseif ARGV[3] == 'begin' then
    done[#done + 1] = #redis.call('XCLAIM', key, group, consumer, 0, id, 'RETRYCOUNT', ARGV[at + 2],
      'JUSTID')
  else
    local mark = ARGV[at + 2]
    if mark == '' then
      mark = pending[1][4] == 1 and 0 or pending[1][4]
    end
    -- About three years: the time of delivery stays after 1970, as Redis demands.
    done[#done + 1] = #redis.call('XCLAIM', key, group, consumer, 0, id, 'IDLE', '100000000000',
      'RETRYCOUNT', mark, 'JUSTID')
  end
end
return done
