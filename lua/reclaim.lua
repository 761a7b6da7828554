-- Takes over deliveries whose lease has expired, from the log and from the redelivery stream.
--
-- XAUTOCLAIM looks at ten times COUNT entries and returns a cursor. A caller that always started at
-- the front would never reach the tail. XAUTOCLAIM raises the delivery count, but does not return it.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer that takes over
-- ARGV[3]  the lease in milliseconds
-- ARGV[4]  how many to claim from each stream
-- ARGV[5]  the cursor in the log
-- ARGV[6]  the cursor in the redelivery stream
--
-- Returns for each stream {next cursor, {{id, fields, delivery count}, …}, pending ids whose entries
-- are gone from the stream}.
-- XAUTOCLAIM itself checks the type of the first key. Check the second before it claims anything.
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
  local claimed = {}
  for _, entry in ipairs(found[2]) do
    local pending = redis.call('XPENDING', key, ARGV[1], entry[1], entry[1], 1)
    claimed[#claimed + 1] = {entry[1], entry[2], pending[1] and pending[1][4] or 1}
  end
  result[lane] = {found[1], claimed, found[3] or {}}
end
return result
