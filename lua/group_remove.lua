-- Removes a group and all that is its own, in the one step that proves that nobody needs it.
--
-- Looking and removing must not be two commands: a message that is published, or a consumer that
-- comes, in between would be lost or made to begin anew.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redo lane, a stream or absent
-- KEYS[3]  its retries by due time, a sorted set or absent
-- KEYS[4]  its retries' bodies, a hash or absent
-- KEYS[5]  its dead letters' heads, a stream or absent
-- KEYS[6]  their bodies, a hash or absent
-- KEYS[7]  their counts, a hash or absent
-- KEYS[8]  their causes, a hash or absent
-- KEYS[9]  which were put in, a hash or absent
-- KEYS[10]  what was taken out of them and still counts, a hash or absent
-- KEYS[11]  the group's journal, a hash or absent
-- ARGV[1]  the group
-- ARGV[2]  a consumer that was heard of in so many milliseconds lives
-- ARGV[3]  'force' to remove it whatever waits and lives, '' otherwise
--
-- Returns {1 when it was removed and 0 when not, lag, delivered and unsettled, retries and redo
-- entries waiting, dead letters, consumers, living consumers}, or nothing when there is no such
-- group. A lag of more than a thousand entries, or of more than 256 KiB, is the most it can be.
local log, redo = find_group(KEYS[1], ARGV[1]), find_group(KEYS[2], ARGV[1])
if not log then
  return {}
end
local lag, held = lag_of(KEYS[1], log, 1000, 262144), log['pending']
local waiting = redis.call('ZCARD', KEYS[3])
if redo then
  waiting = waiting + lag_of(KEYS[2], redo, 1000, 262144)
  held = held + redo['pending']
end
local dead = redis.call('XLEN', KEYS[5])
local alive, living = {}, 0
for lane = 1, 2 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[lane], ARGV[1])
  if consumers.err and not string.find(consumers.err, 'no such key', 1, true)
    and string.sub(consumers.err, 1, 7) ~= 'NOGROUP' then
    return consumers
  end
  for _, flat in ipairs(consumers.err and {} or consumers) do
    local consumer = named(flat)
    if consumer['idle'] < tonumber(ARGV[2]) and not alive[consumer['name']] then
      alive[consumer['name']] = true
      living = living + 1
    end
  end
end

local removed = 0
if ARGV[3] == 'force' or lag + held + waiting + dead + living == 0 then
  redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
  for key = 2, #KEYS do
    -- UNLINK frees a million dead letters beside the server's main thread.
    redis.call('UNLINK', KEYS[key])
  end
  removed = 1
end
return {removed, lag, held, waiting, dead, log['consumers'], living}
