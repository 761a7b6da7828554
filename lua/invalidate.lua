-- Reports a change of a key and changes nothing.
--
-- With CLIENT TRACKING the server remembers for each key the connections that have read it, also those of
-- ended processes, until it reports a change. An idle key would gather them without bound.
--
-- KEYS[1]  the key, of any type
-- Returns whether the key exists, as 1 or 0.

local key = KEYS[1]

if redis.call('EXISTS', key) == 0 then
  redis.call('ZADD', key, 0, 'invalidated')
  redis.call('ZREM', key, 'invalidated')
  return 0
end

-- A key that expires is left alone: it changes soon.
if redis.call('PTTL', key) == -1 then
  -- The first call changes nothing. It fails where the caller may not make the third.
  redis.call('PERSIST', key)
  -- In the year 2100.
  redis.call('PEXPIREAT', key, 4102444800000)
  redis.call('PERSIST', key)
end
return 1
