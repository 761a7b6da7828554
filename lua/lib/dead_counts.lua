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

-- Writes what was noted.
local function count_dead(counts, causes)
  for name, by in pairs(count_changes) do
    if redis.call('HINCRBY', counts, name, by) <= 0 then
      redis.call('HDEL', counts, name)
    end
  end
  for cause, change in pairs(cause_changes) do
    if redis.call('HINCRBY', causes, 'n ' .. cause, change.by) <= 0 then
      redis.call('HDEL', causes, 'n ' .. cause, 'f ' .. cause, 'l ' .. cause)
    elseif change.last then
      redis.call('HSETNX', causes, 'f ' .. cause, change.first)
      redis.call('HSET', causes, 'l ' .. cause, change.last)
    end
  end
end

