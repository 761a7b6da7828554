-- Begins or finishes a migration of the namespace.
--
-- Between the two the schema is dirty: a failure in between is found by whoever comes next.
--
-- KEYS[1]  the namespace's schema, a hash or absent
-- ARGV[1]  'begin', 'repair' to begin what was left dirty, or 'finish'
-- ARGV[2]  the caller's token
-- ARGV[3]  the migration's number, four digits
-- ARGV[4]  the migration's checksum
-- ARGV[5]  how long the lock holds in milliseconds
--
-- Returns 'ok'; 'applied' when there is nothing to do; 'locked' while another applies migrations;
-- 'dirty' when a migration was left half-way; 'lost' when the lock has passed to another.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'lock', 'lockUntil', 'dirty', 'applied:' .. ARGV[3])
local locked = held[1] and tonumber(held[2]) > now
if ARGV[1] == 'finish' then
  if held[1] ~= ARGV[2] then
    return 'lost'
  end
  redis.call('HSET', KEYS[1], 'applied:' .. ARGV[3], ARGV[4],
    'appliedAt:' .. ARGV[3], string.format('%.0f', now))
  redis.call('HDEL', KEYS[1], 'lock', 'lockUntil', 'dirty')
  return 'ok'
end
if locked and held[1] ~= ARGV[2] then
  return 'locked'
end
if held[4] then
  return 'applied'
end
if held[3] and ARGV[1] ~= 'repair' then
  return 'dirty'
end
redis.call('HSET', KEYS[1], 'lock', ARGV[2], 'lockUntil', string.format('%.0f', now + ARGV[5]),
  'dirty', ARGV[3])
return 'ok'
