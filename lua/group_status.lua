-- Counts a group's messages by state.
--
-- A message moves from the streams to the retries and back, so separate commands could miss it
-- everywhere. The caller has read the group's place in the log before the call; an entry that was
-- delivered since then counts as not delivered and as in flight.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream, or absent
-- KEYS[3]  its retries by due time, a sorted set or absent
-- KEYS[4]  the heads of its dead letters, a stream or absent
-- KEYS[5]  the topic's settings, a hash or absent
-- ARGV[1]  the group
-- ARGV[2]  its last delivered id in the log, as XINFO tells
-- ARGV[3]  its lag, as XINFO tells, or ''
--
-- Returns {lag, in flight, scheduled retries and unread redeliveries, dead letters, 1 for an owned group
-- and 0 for a shared one}, or an empty list when there is no such group. Above a thousand entries or 256 KiB
-- the lag is an upper bound.
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if pending.err then
  if string.sub(pending.err, 1, 7) == 'NOGROUP' then
    return {}
  end
  return pending
end
local log = {['last-delivered-id'] = ARGV[2], ['lag'] = tonumber(ARGV[3])}
local lag = lag_of(KEYS[1], log, 1000, 262144)
local waiting = redis.call('ZCARD', KEYS[3])
local in_flight = pending[1]
local redo = find_group(KEYS[2], ARGV[1])
if redo then
  waiting = waiting + lag_of(KEYS[2], redo, 1000, 262144)
  in_flight = in_flight + redo['pending']
end
local owned = redis.call('HGET', KEYS[5], 'owned:' .. ARGV[1])
return {lag, in_flight, waiting, redis.call('XLEN', KEYS[4]), owned and 1 or 0}
