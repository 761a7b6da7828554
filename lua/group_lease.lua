-- Sets the lease of a group, as far as other live consumers allow it.
--
-- The lease belongs to the group, so that no process takes over a delivery by a lease of its own. A
-- longer lease holds at once. A shorter one holds when no other consumer lives that may rely on the
-- longer one. A live consumer calls the server at least every 100 seconds.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- KEYS[3]  the topic's settings, a hash or absent
-- ARGV[1]  the group
-- ARGV[2]  the consumer that asks
-- ARGV[3]  the lease in milliseconds
--
-- Returns the lease that holds, in milliseconds.
local wrong = check_types({'stream', 'stream', 'hash'})
if wrong then
  return wrong
end
local field = 'lease:' .. ARGV[1]
local stored, asked = tonumber(redis.call('HGET', KEYS[3], field) or '0'), tonumber(ARGV[3])
if asked < stored then
  for lane = 1, 2 do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[lane], ARGV[1])
    if consumers.err and not string.find(consumers.err, 'no such key', 1, true)
      and string.sub(consumers.err, 1, 7) ~= 'NOGROUP' then
      return consumers
    end
    for _, flat in ipairs(consumers.err and {} or consumers) do
      local consumer = named(flat)
      if consumer['name'] ~= ARGV[2] and consumer['idle'] < math.max(stored, 150000) then
        return stored
      end
    end
  end
end
if asked ~= stored then
  redis.call('HSET', KEYS[3], field, ARGV[3])
end
return asked
