-- Keeps a member of an owned group for another lease, gives partitions up, and grants claims; or lets the
-- member leave. A member that departs is about to leave: the others share the partitions without it.
--
-- A partition belongs to a member until the member gives it up, leaves, or its lease ends. The script
-- grants a claim only on a partition without an owner, with a token that is greater than every earlier one.
-- A token is also no smaller than the server's clock in microseconds: where the earlier tokens are lost, as
-- with a removed group, the next ones are greater still. Numbers are exact below 2^53, until the year 2255.
-- The first write needs no memory: Redis then refuses none of the others, so members stay members while
-- the server's memory is full.
--
-- KEYS[1]  the members by the end of their lease in milliseconds, a sorted set or absent
-- KEYS[2]  the owners by partition, a hash or absent; its field `changes` counts joins and departures, and for
--          each member it has a field `lease:` with its name, and `leaving:` where it departs
-- KEYS[3]  the last token of each partition, a hash or absent
-- KEYS[4]  the topic's settings, a hash
-- ARGV[1]  the group
-- ARGV[2]  the member
-- ARGV[3]  'attend', 'depart' or 'leave'
-- ARGV[4]  the lease in milliseconds
-- then for each partition:
-- ITEM[1]  'give' or 'claim'
-- ITEM[2]  the partition's number
-- ITEM[3]  claim: the number that the token must exceed; give: ''
--
-- Returns {members that are not about to leave, {partition, owner, token, …}}, or an empty list when there is
-- no such group.
local wrong = check_types({'zset', 'hash', 'hash', 'hash'})
if wrong then
  return wrong
end
if not redis.call('HGET', KEYS[4], 'owned:' .. ARGV[1]) then
  return {}
end
local time = redis.call('TIME')
local now, micros = time[1] * 1000 + math.floor(time[2] / 1000), time[1] * 1000000 + time[2]
local me = ARGV[2]
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
-- Also where nobody has expired: this write needs no memory.
expired[#expired + 1] = ARGV[3] == 'leave' and me or ''
local changed = redis.call('ZREM', KEYS[1], unpack(expired)) > 0
if ARGV[3] ~= 'leave' then
  -- A member that is late keeps what it owns, if no other call has come first.
  changed = redis.call('ZADD', KEYS[1], now + ARGV[4], me) == 1 or changed
end

local lives, members, ends = {}, {}, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for at = 1, #ends, 2 do
  lives[ends[at]], members[#members + 1] = true, ends[at]
end
local owners, leaving, leases, free = read_owners(redis.call('HGETALL', KEYS[2]), lives)
local granted = {}
if lives[me] and leases[me] ~= tonumber(ARGV[4]) then
  granted[1], granted[2], leases[me] = 'lease:' .. me, ARGV[4], tonumber(ARGV[4])
end
-- Where the server's clock was set back, a lease is still no longer than its member asked for.
for at = 1, #ends, 2 do
  local lease = leases[ends[at]]
  if lease and tonumber(ends[at + 1]) > now + lease then
    redis.call('ZADD', KEYS[1], now + lease, ends[at])
  end
end
local leaves = ARGV[3] == 'depart'
if leaves and not leaving[me] then
  granted[#granted + 1], granted[#granted + 2] = 'leaving:' .. me, 1
elseif leaving[me] and not leaves then
  free[#free + 1] = 'leaving:' .. me
end
leaving[me] = leaves
for at = 5, #ARGV, 3 do
  local action, partition = ARGV[at], ARGV[at + 1]
  if action == 'give' and owners[partition] == me then
    owners[partition] = nil
    free[#free + 1] = partition
  elseif action == 'claim' and (not owners[partition] or owners[partition] == me) then
    local token = tonumber(redis.call('HGET', KEYS[3], partition) or '0')
    local above = tonumber(ARGV[at + 2])
    if not owners[partition] or token <= above then
      local raised = string.format('%.0f', math.max(token + 1, above + 1, micros))
      redis.call('HSET', KEYS[3], partition, raised)
      owners[partition] = me
      granted[#granted + 1], granted[#granted + 2] = partition, me
    end
  end
end
if #free > 0 then
  redis.call('HDEL', KEYS[2], unpack(free))
end
if #granted > 0 then
  redis.call('HSET', KEYS[2], unpack(granted))
end
-- A change of this key wakes the members, a renewal does not.
if changed then
  redis.call('HINCRBY', KEYS[2], 'changes', 1)
end

return roster_of(members, owners, leaving)
