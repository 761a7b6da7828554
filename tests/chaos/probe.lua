-- How many entries a log lacks that a group has not settled.
--
-- KEYS[1]  the log
--
-- Returns how many of those pending are gone (the oldest hundred of each group), and how many of
-- those that were not delivered yet, where Redis can tell how many there are.
local missing = 0
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for at = 1, #flat, 2 do
    group[flat[at]] = flat[at + 1]
  end
  for _, held in ipairs(redis.call('XPENDING', KEYS[1], group['name'], '-', '+', 100)) do
    missing = missing + 1 - #redis.call('XRANGE', KEYS[1], held[1], held[1])
  end
  local lag = group['lag']
  if lag and lag <= 2000 then
    local there = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', lag)
    missing = missing + lag - #there
  end
end
return missing
