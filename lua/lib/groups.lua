-- Finds a group of a stream, and measures its lag. This text stands in front of the scripts that use it.

-- Turns a flat list of names and values into a table.
local function named(flat)
  local fields = {}
  for at = 1, #flat, 2 do
    fields[flat[at]] = flat[at + 1]
  end
  return fields
end

-- Returns XINFO's fields of a group, or nil when the stream or the group does not exist.
local function find_group(key, name)
  if redis.call('EXISTS', key) == 0 then
    return nil
  end
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local group = named(flat)
    if group['name'] == name then
      return group
    end
  end
end

-- Counts entries between two ids. Stops after `most` entries or after copying about `bytes` bytes.
-- Returns the count, and whether it counted all.
local function count(key, from, to, most, bytes)
  -- Begin with small pages: the server copies a whole page before the script can weigh it.
  local found, size = 0, 1
  while found < most and bytes > 0 do
    local page = redis.call('XRANGE', key, from, to, 'COUNT', size)
    for _, entry in ipairs(page) do
      for _, part in ipairs(entry[2]) do
        bytes = bytes - #part
      end
    end
    found = found + #page
    if #page < size then
      return found, true
    end
    from = '(' .. page[size][1]
    size = math.min(2 * size, 8)
  end
  return found, false
end

-- Returns how many entries the group has not read.
--
-- XINFO's lag is an upper bound, and sometimes missing. It is too high after a restart: the append-only
-- file records XREADGROUP as XCLAIM, without the number of entries read, so the server forgets the reads
-- since the last rewrite of the file. The function therefore counts a small lag itself, and trusts
-- XINFO's upper bound only for a large one.
local function lag_of(key, group, most, bytes)
  local reported = math.min(group['lag'] or math.huge, redis.call('XLEN', key))
  if reported == 0 then
    return 0
  end
  local left, all = count(key, '(' .. group['last-delivered-id'], '+', most, bytes)
  return all and left or math.max(left, reported)
end
