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

-- Counts entries from one id on, up to `most` and as far as that copies no more than some `bytes`.
-- Returns how many there are and whether those are all.
local function count(key, from, most, bytes)
  -- Whatever one page weighs has been copied before it can be weighed.
  local found, size = 0, 1
  while found < most and bytes > 0 do
    local page = redis.call('XRANGE', key, from, '+', 'COUNT', size)
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

-- How many entries a group was not given.
--
-- XINFO says too many at times: XREADGROUP goes into the append-only file as XCLAIM, which says nothing
-- of how many entries were read, so that after a restart a group seems to lack for good what it was
-- given since the file was last rewritten. It never says too few, and sometimes it says nothing. So
-- what is left is counted where it is little; where it is more, what XINFO says is the most that it can
-- be.
local function lag_of(key, group, most, bytes)
  local told = math.min(group['lag'] or math.huge, redis.call('XLEN', key))
  if told == 0 then
    return 0
  end
  local left, all = count(key, '(' .. group['last-delivered-id'], most, bytes)
  return all and left or math.max(left, told)
end
