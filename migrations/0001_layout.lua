-- Layout 1: the topic registry is a set, and the schema says which layout the namespace has.
--
-- Migrations are applied in the order of their numbers, each once, and never changed after a
-- release. Each may be repeated after a failure, so it must do no harm to what it has done.
--
-- KEYS[1]  the namespace's schema, a hash or absent
-- KEYS[2]  the topic registry, a set or absent
--
-- Returns 1. Fails, with nothing changed, when the registry's name is taken by another type.
local held = redis.call('TYPE', KEYS[2]).ok
if held ~= 'none' and held ~= 'set' then
  return redis.error_reply('MIGRATION the topic registry ' .. KEYS[2] .. ' is a ' .. held)
end
redis.call('HSET', KEYS[1], 'layout', 1)
return 1
