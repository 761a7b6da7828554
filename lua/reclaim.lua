-- Takes over deliveries whose lease has expired, from the log and from the redo lane.
--
-- XAUTOCLAIM looks at ten times COUNT entries and returns where to go on: starting at the front
-- every time would never reach the tail. It raises the delivery count, which its reply lacks.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redo lane, a stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer that takes over
-- ARGV[3]  the lease in milliseconds
-- ARGV[4]  how many to take from each lane
-- ARGV[5]  where to go on in the log
-- ARGV[6]  where to go on in the redo lane
--
-- Returns for each lane {next cursor, {{id, fields, delivery count}, …}, ids that were pending and
-- are no longer in the stream}.
-- The first lane's key fails by itself where it is of another type; the second's has to before that.
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is a ' .. kind .. ', not a stream')
end
local result = {}
for lane = 1, 2 do
  local key = KEYS[lane]
  local found = redis.pcall('XAUTOCLAIM', key, ARGV[1], ARGV[2], ARGV[3], ARGV[4 + lane],
    'COUNT', ARGV[4])
  if found.err then
    return found
  end
  local taken = {}
  for _, entry in ipairs(found[2]) do
    local held = redis.call('XPENDING', key, ARGV[1], entry[1], entry[1], 1)
    taken[#taken + 1] = {entry[1], entry[2], held[1] and held[1][4] or 1}
  end
  result[lane] = {found[1], taken, found[3] or {}}
end
return result
