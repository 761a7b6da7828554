-- Takes over deliveries whose lease has expired, from the log and from the redelivery stream.
--
-- XAUTOCLAIM looks at ten times COUNT entries and returns a cursor. A caller that always started at
-- the front would never reach the tail. JUSTID keeps the delivery count as it is: a claim counts no
-- attempt. The delivery count is the mark of begun attempts that lease.lua describes. A mark of 1
-- says that the last owner read the entry and marked nothing. The script replaces it, so that a mark
-- of 1 always is the owner's own hand-out, also when the reply of this script is lost.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- KEYS[3]  the topic's settings, a hash or absent
-- ARGV[1]  the group
-- ARGV[2]  the consumer that takes over
-- ARGV[3]  the lease in milliseconds; the group's own lease holds where it is longer
-- ARGV[4]  how many to claim from each stream
-- ARGV[5]  the cursor in the log
-- ARGV[6]  the cursor in the redelivery stream
-- ARGV[7]  the mark that replaces a mark of 1: '1000001' for one begun attempt, '0' for none
--
-- Returns for each stream {next cursor, {{id, fields, mark}, …}, pending ids whose entries are gone
-- from the stream}, and then the group's lease, 0 where it has none, and how many entries of both
-- streams were pending before the call.
local group, consumer = ARGV[1], ARGV[2]
-- Check both streams before claiming from either: a stream of another type, or one without the group.
local pending = 0
for lane = 1, 2 do
  local found = redis.pcall('XPENDING', KEYS[lane], group)
  if found.err then
    return found
  end
  pending = pending + found[1]
end
local lease = tonumber(redis.call('HGET', KEYS[3], 'lease:' .. group) or '0')
local longest = math.max(lease, tonumber(ARGV[3]))
local result = {}
for lane = 1, 2 do
  local key = KEYS[lane]
  local found = redis.pcall('XAUTOCLAIM', key, group, consumer, longest, ARGV[4 + lane],
    'COUNT', ARGV[4], 'JUSTID')
  if found.err then
    return found
  end
  local claimed = {}
  for _, id in ipairs(found[2]) do
    local mark = redis.call('XPENDING', key, group, id, id, 1)[1][4]
    if mark == 1 then
      mark = tonumber(ARGV[7])
      redis.call('XCLAIM', key, group, consumer, 0, id, 'RETRYCOUNT', ARGV[7], 'JUSTID')
    end
    claimed[#claimed + 1] = {id, redis.call('XRANGE', key, id, id)[1][2], mark}
  end
  result[lane] = {found[1], claimed, found[3] or {}}
end
result[3] = lease
result[4] = pending
return result
