-- How many entries a log lacks that a group was given and has not settled.
--
-- KEYS[1]  the log
--
-- Returns how many of those pending are gone, of the oldest hundred of each group. What was not given
-- yet cannot be told from here: Redis loses count of it when it loads its append-only file.
local missing = 0
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for at = 1, #flat, 2 do
    group[flat[at]] = flat[at + 1]
  end
  for _, held in ipairs(redis.call('XPENDING', KEYS[1], group['name'], '-', '+', 100)) do
    missing = missing + 1 - #redis.call('XRANGE', KEYS[1], held[1], held[1])
  end
end
return missing
