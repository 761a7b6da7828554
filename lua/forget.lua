-- Removes consumers that hold nothing, in the one step that proves it.
--
-- XGROUP DELCONSUMER drops what a consumer holds for ever, so that looking and removing must not be
-- two commands. A living consumer that is removed while idle comes back with its next read.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redo lane, a stream
-- ARGV[1]  the group
-- ARGV[2]  for how many milliseconds a consumer must not have been heard of
-- ARGV[3]  the only consumer to remove, '' for any
--
-- Returns how many were removed.
-- A key of another type is found before anything is written.
for at, kind in pairs({'stream', 'stream'}) do
  local held = redis.call('TYPE', KEYS[at]).ok
  if held ~= 'none' and held ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. held .. ', not a ' .. kind)
  end
end
local names, held, idle = {}, {}, {}
for lane = 1, 2 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[lane], ARGV[1])
  if consumers.err and not string.find(consumers.err, 'no such key', 1, true)
    and string.sub(consumers.err, 1, 7) ~= 'NOGROUP' then
    return consumers
  end
  -- A lane or group that is not there has no consumers.
  if not consumers.err then
    for _, flat in ipairs(consumers) do
      local consumer = {}
      for at = 1, #flat, 2 do
        consumer[flat[at]] = flat[at + 1]
      end
      local name = consumer['name']
      if not held[name] then
        names[#names + 1] = name
        held[name], idle[name] = 0, consumer['idle']
      end
      held[name] = held[name] + consumer['pending']
      idle[name] = math.min(idle[name], consumer['idle'])
    end
  end
end
local removed = 0
for _, name in ipairs(names) do
  if held[name] == 0 and idle[name] >= tonumber(ARGV[2]) and (ARGV[3] == '' or ARGV[3] == name) then
    for lane = 1, 2 do
      local gone = redis.pcall('XGROUP', 'DELCONSUMER', KEYS[lane], ARGV[1], name)
      if type(gone) == 'table' and string.sub(gone.err, 1, 7) ~= 'NOGROUP'
        and not string.find(gone.err, 'requires the key to exist', 1, true) then
        return gone
      end
    end
    removed = removed + 1
  end
end
return removed
