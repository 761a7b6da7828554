-- Finds a group of a stream, and what it was not given yet. Stands before the text of the scripts
-- that ask for it; by itself it does nothing.

-- A flat list of names and values as a table.
local function named(flat)
  local fields = {}
  for at = 1, #flat, 2 do
    fields[flat[at]] = flat[at + 1]
  end
  return fields
end

-- What XINFO says of a group, or nothing where the stream or the group is not there.
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

-- Counts entries from one id to another, up to `most` and as far as that costs a copy of some
-- 256 KiB, whatever an entry weighs. Returns how many there are and whether those are all.
local function count(key, from, to, most)
  local first, weight = redis.call('XRANGE', key, from, to, 'COUNT', 3), 1
  if #first < 3 then
    return #first, true
  end
  for _, entry in ipairs(first) do
    for _, part in ipairs(entry[2]) do
      weight = math.max(weight, #part)
    end
  end
  most = math.max(10, math.min(most, math.floor(262144 / weight)))
  local found = #redis.call('XRANGE', key, from, to, 'COUNT', most)
  return found, found < most
end

-- How many entries a group was not given, and whether that is certain.
--
-- XINFO does not know: XREADGROUP goes into the append-only file as XCLAIM, which says nothing of how
-- many entries were read. After the file was loaded, a group seems to lack for good what it was given
-- since the file was last rewritten. And sometimes XINFO says nothing. So what is left is counted where
-- it is little, up to `most`; where it is more, what XINFO says is the most that it can be.
local function lag_of(key, group, most)
  local left, all = count(key, '(' .. group['last-delivered-id'], '+', most)
  if all then
    return left, true
  end
  local length = redis.call('XLEN', key)
  return math.max(left, math.min(group['lag'] or length, length)), false
end
