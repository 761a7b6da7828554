-- Finds who holds deliveries. This text stands in front of the scripts that use it.

-- Returns 1 when the consumer holds the entry, 0 when another consumer holds it or the group is gone,
-- -1 when nobody holds it, and then XPENDING's row; or nil and an error. The group is gone when
-- neither the log, KEYS[1], nor its redelivery stream, KEYS[2], has it. One stream alone was deleted
-- by something other than Redstart.
local function holder_of(key, group, consumer, id)
  local rows = redis.pcall('XPENDING', key, group, id, id, 1)
  if rows.err and string.sub(rows.err, 1, 7) ~= 'NOGROUP' then
    return nil, rows
  end
  if rows.err then
    local other = redis.pcall('XPENDING', key == KEYS[1] and KEYS[2] or KEYS[1], group)
    return other.err and 0 or -1
  end
  local row = rows[1]
  if not row then
    return -1
  end
  return row[2] == consumer and 1 or 0, row
end

-- Finds who holds each of several ids of a stream, as holder_of does. `first` and `last` are the
-- smallest and the greatest of the ids. One XPENDING over this range finds most of those that the
-- consumer holds. The others are looked up one by one, so the result does not depend on that shortcut.
-- Returns the holders, and the delivery counts of the pending ids; or nil and an error.
local function holders_of(key, group, consumer, ids, first, last)
  local holders, counts = {}, {}
  if #ids > 1 then
    local rows = redis.pcall('XPENDING', key, group, first, last, 2 * #ids, consumer)
    for _, row in ipairs(rows) do
      holders[row[1]], counts[row[1]] = 1, row[4]
    end
  end
  for _, id in ipairs(ids) do
    if not holders[id] then
      local holder, row = holder_of(key, group, consumer, id)
      if not holder then
        return nil, row
      end
      holders[id], counts[id] = holder, row and row[4]
    end
  end
  return holders, counts
end
