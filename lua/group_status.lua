-- Where a group stands, at one moment.
--
-- A message moves between the lanes and the retries: commands one after the other could miss it
-- everywhere.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redo lane, a stream or absent
-- KEYS[3]  its retries by due time, a sorted set or absent
-- KEYS[4]  its dead letters, a stream or absent
-- ARGV[1]  the group
--
-- Returns {lag, delivered and unsettled, retries and redo entries waiting, dead letters, consumers},
-- or nothing when there is no such group. Where Redis cannot tell a lag, all entries count.
local function find(key)
  if redis.call('EXISTS', key) == 0 then
    return nil
  end
  local groups = redis.call('XINFO', 'GROUPS', key)
  for _, flat in ipairs(groups) do
    local group = {}
    for at = 1, #flat, 2 do
      group[flat[at]] = flat[at + 1]
    end
    if group['name'] == ARGV[1] then
      return group
    end
  end
end
local log, redo = find(KEYS[1]), find(KEYS[2])
if not log then
  return {}
end
local lag = log['lag'] or redis.call('XLEN', KEYS[1])
local waiting = redis.call('ZCARD', KEYS[3])
local held = log['pending']
if redo then
  waiting = waiting + (redo['lag'] or redis.call('XLEN', KEYS[2]))
  held = held + redo['pending']
end
return {lag, held, waiting, redis.call('XLEN', KEYS[4]), log['consumers']}
