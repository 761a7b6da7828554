-- Keeps the counts of a group's dead letters. Stands before the text of the scripts that bury them,
-- take them out and put them in; by itself it does nothing.
--
-- Counts of types, tenants and hours are fields `type:…`, `tenant:…` and `hour:…` (hours since 1970)
-- of one hash; a cause (`reason fingerprint`) has three fields of another: `n …` how many, `f …` and
-- `l …` the first and the last id. What a whole call adds up to is written at its end.

-- Fails before anything is written where a key is not what it should be: nothing is rolled back.
local function check_types(kinds)
  for at, kind in ipairs(kinds) do
    local found = redis.call('TYPE', KEYS[at])['ok']
    if found ~= 'none' and found ~= kind then
      return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. found .. ', not a ' .. kind)
    end
  end
end

local count_changes, cause_changes = {}, {}

-- Notes that so many dead letters came, or, by a negative number, went. The ids are of those that came.
local function note(cause, kind, tenant, hour, by, first, last)
  for _, name in ipairs({'type:' .. kind, 'tenant:' .. tenant, 'hour:' .. hour}) do
    count_changes[name] = (count_changes[name] or 0) + by
  end
  local change = cause_changes[cause] or {by = 0}
  cause_changes[cause] = change
  change.by = change.by + by
  change.first = change.first or first
  change.last = last or change.last
end

-- Notes that a dead letter came.
local function note_dead(head, id)
  local read, place = pcall(cmsgpack.unpack, head)
  -- A head that cannot be read is not counted, and not when it goes either.
  if read and type(place) == 'table' and place[4] then
    local hour = math.floor(tonumber(string.match(id, '^%d+')) / 3600000)
    note(place[1] .. ' ' .. place[2], place[3], place[4], hour, 1, id, id)
  end
end

-- Writes values into a hash and removes fields from it. A call of a command costs more than what the
-- command does: what is noted takes three for each hash, however much it is.
local function write(key, kept, gone)
  if kept[1] then
    redis.call('HSET', key, unpack(kept))
  end
  if gone[1] then
    redis.call('HDEL', key, unpack(gone))
  end
end

-- The names of a table, and what a hash has under them, in their order.
local function look_up(key, changes, named)
  local names, fields = {}, {}
  for name in pairs(changes) do
    names[#names + 1] = name
    named(fields, name)
  end
  return names, names[1] and redis.call('HMGET', key, unpack(fields))
end

local function sum(number, by)
  return (tonumber(number) or 0) + by
end

-- Writes what was noted.
local function count_dead(counts, causes)
  local names, found = look_up(counts, count_changes, function(fields, name)
    fields[#fields + 1] = name
  end)
  local kept, gone = {}, {}
  for at, name in ipairs(names) do
    local count = sum(found[at], count_changes[name])
    if count > 0 then
      kept[#kept + 1], kept[#kept + 2] = name, string.format('%.0f', count)
    else
      gone[#gone + 1] = name
    end
  end
  write(counts, kept, gone)

  names, found = look_up(causes, cause_changes, function(fields, cause)
    fields[#fields + 1], fields[#fields + 2] = 'n ' .. cause, 'f ' .. cause
  end)
  kept, gone = {}, {}
  for at, cause in ipairs(names) do
    local change = cause_changes[cause]
    local count = sum(found[2 * at - 1], change.by)
    if count > 0 then
      kept[#kept + 1], kept[#kept + 2] = 'n ' .. cause, string.format('%.0f', count)
      if change.last then
        kept[#kept + 1], kept[#kept + 2] = 'l ' .. cause, change.last
        if not found[2 * at] then
          kept[#kept + 1], kept[#kept + 2] = 'f ' .. cause, change.first
        end
      end
    else
      for _, part in ipairs({'n ', 'f ', 'l '}) do
        gone[#gone + 1] = part .. cause
      end
    end
  end
  write(causes, kept, gone)
end
