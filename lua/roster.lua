-- Reads the members of an owned group, and what they own.
--
-- KEYS[1]  the members by the end of their lease in milliseconds, a sorted set or absent
-- KEYS[2]  the owners by partition, a hash or absent
-- KEYS[3]  the last token of each partition, a hash or absent
-- KEYS[4]  the topic's settings, a hash
-- ARGV[1]  the group
--
-- Returns {members that are not about to leave, {partition, owner, token, …}}, or an empty list when there is
-- no such group.
if not redis.call('HGET', KEYS[4], 'owned:' .. ARGV[1]) then
  return {}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lives, members = {}, redis.call('ZRANGE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'BYSCORE')
for _, name in ipairs(members) do
  lives[name] = true
end
local owners, leaving = read_owners(redis.call('HGETALL', KEYS[2]), lives)
return roster_of(members, owners, leaving)
