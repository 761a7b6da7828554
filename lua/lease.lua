-- Extends the lease of deliveries, or gives them back, where the consumer still holds them.
--
-- XCLAIM checks no owner, so that is done here. What is given back gets an idle time that no lease
-- reaches, and a delivery count of one less: the next reclaim takes it at once and finds it
-- uncounted. JUSTID keeps the count from rising.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redo lane, a stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3]  'extend' or 'release'
-- then for each delivery:
-- ITEM[1]  'log' or 'redo'
-- ITEM[2]  the entry's id
--
-- Returns for each delivery 1, or 0 when the consumer does not hold it.
-- A key of another type is found before anything is written.
for at, kind in pairs({'stream', 'stream'}) do
  local held = redis.call('TYPE', KEYS[at]).ok
  if held ~= 'none' and held ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. held .. ', not a ' .. kind)
  end
end
local group, consumer = ARGV[1], ARGV[2]
local done = {}
for at = 4, #ARGV, 2 do
  local key, id = ARGV[at] == 'log' and KEYS[1] or KEYS[2], ARGV[at + 1]
  local held = redis.pcall('XPENDING', key, group, id, id, 1)
  if held.err and string.sub(held.err, 1, 7) ~= 'NOGROUP' then
    return held
  end
  if held.err or not held[1] or held[1][2] ~= consumer then
    done[#done + 1] = 0
  elseif ARGV[3] == 'extend' then
    -- An entry that a hand from outside has removed is held no more: XCLAIM drops it.
    done[#done + 1] = #redis.call('XCLAIM', key, group, consumer, 0, id, 'JUSTID')
  elseif held[1][3] >= 50000000000 then
    -- Given back already, by a call whose reply was lost: it is not uncounted twice.
    done[#done + 1] = 1
  else
    -- About three years, which keeps the time of delivery after 1970, as Redis demands.
    done[#done + 1] = #redis.call('XCLAIM', key, group, consumer, 0, id, 'IDLE', '100000000000',
      'RETRYCOUNT', math.max(held[1][4] - 1, 0), 'JUSTID')
  end
end
return done
