-- Layout 3: placement `together`. Every key of the namespace has the hash tag of the namespace.
--
-- A new namespace begins with this layout instead of 1 and 2: nothing stored changes. A version that
-- does not know the placement would use other names, and refuses a migration that it does not know.
--
-- KEYS[1]  the namespace's schema, a hash
-- KEYS[2]  the topic registry, a set or absent
--
-- Returns 1. Fails, with nothing changed, when the registry's name is taken by another type.
local held = redis.call('TYPE', KEYS[2]).ok
if held ~= 'none' and held ~= 'set' then
  return redis.error_reply('MIGRATION the topic registry ' .. KEYS[2] .. ' is a ' .. held)
end
redis.call('HSET', KEYS[1], 'layout', 3)
return 1
