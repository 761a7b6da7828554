-- Begins or finishes a migration of the namespace.
--
-- From begin to finish the schema is marked dirty, so that a later caller sees an unfinished migration. The
-- lock holds from the first migration of a caller to its last: nobody takes a namespace between two of
-- them for an old one.
-- The first migration to begin fixes the placement of the namespace.
--
-- KEYS[1]  the namespace's schema, a hash or absent
-- KEYS[2]  the topic registry, a set or absent
-- ARGV[1]  'begin'; 'repair' to begin a migration that was left dirty; 'finish'; 'finish-one' to finish a
--          migration and keep the lock for the next
-- ARGV[2]  the caller's token
-- ARGV[3]  the migration's number, four digits
-- ARGV[4]  the migration's checksum
-- ARGV[5]  how long the lock holds in milliseconds
-- ARGV[6]  the placement that the migration belongs to
--
-- Returns one of: 'ok'; 'applied' when the migration was applied before; 'locked' while another
-- caller migrates; 'dirty' when a migration was not finished; 'lost' when the lock has passed to
-- another caller; 'placed' when the namespace has another placement.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', KEYS[1], 'lock', 'lockUntil', 'dirty', 'applied:' .. ARGV[3])
local locked = state[1] and tonumber(state[2]) > now
if ARGV[1] == 'finish' or ARGV[1] == 'finish-one' then
  if state[1] ~= ARGV[2] then
    return 'lost'
  end
  redis.call('HSET', KEYS[1], 'applied:' .. ARGV[3], ARGV[4],
    'appliedAt:' .. ARGV[3], string.format('%.0f', now))
  redis.call('HDEL', KEYS[1], 'dirty')
  if ARGV[1] == 'finish' then
    redis.call('HDEL', KEYS[1], 'lock', 'lockUntil')
  end
  return 'ok'
end
local placement = redis.call('HGET', KEYS[1], 'placement')
if not placement and (redis.call('EXISTS', unpack(KEYS)) > 0) then
  -- Versions that did not know placements set it up.
  placement = 'spread'
end
if placement and placement ~= ARGV[6] then
  return 'placed'
end
if locked and state[1] ~= ARGV[2] then
  return 'locked'
end
if state[4] then
  return 'applied'
end
if state[3] and ARGV[1] ~= 'repair' then
  return 'dirty'
end
redis.call('HSET', KEYS[1], 'lock', ARGV[2], 'lockUntil', string.format('%.0f', now + ARGV[5]),
  'dirty', ARGV[3], 'placement', ARGV[6])
return 'ok'
