-- Extends or releases the leases of deliveries that the consumer still owns.
--
-- XCLAIM checks no owner, so the script does. A released delivery gets an idle time longer than any
-- lease and a delivery count lower by one: the next reclaim claims it at once, and the released
-- delivery does not count as an attempt. JUSTID keeps the count from rising.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3]  'extend' or 'release'
-- then for each delivery:
-- ITEM[1]  'log' or 'redo', the stream of the entry
-- ITEM[2]  the entry's id
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
for at = 4, #ARGV, 2 do
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
  elseif pending[1][3] >= 50000000000 then
    -- Released already, by a call whose reply was lost: do not lower the count twice.
    done[#done + 1] = 1
  else
    -- About three years: the time of delivery stays after 1970, as Redis demands.
    done[#done + 1] = #redis.call('XCLAIM', key, group, consumer, 0, id, 'IDLE', '100000000000',
      'RETRYCOUNT', math.max(pending[1][4] - 1, 0), 'JUSTID')
  end
end
return done
