-- Keeps the counts of a group's dead letters. Stands before the text of the scripts that bury them, put
-- them in and count those that went; by itself it does nothing.
--
-- Counts of types, tenants and hours are fields `type:…`, `tenant:…` and `hour:…` (hours since 1970)
-- of one hash; a cause (`reason fingerprint`) has three fields of another: `n …` how many, `f …` and
-- `l …` the first and the last id. What a whole call adds up to is written at its end.

-- Adds to a number in a hash, and says what it is then.
local function add(key, name, number)
  local sum = redis.pcall('HINCRBY', key, name, number)
  if type(sum) == 'table' then
    -- Another hand has made something else of it, and nothing that was written would be undone.
    redis.call('HSET', key, name, number)
    return tonumber(number)
  end
  return sum
end

local count_changes, cause_changes = {}, {}

-- Notes that a dead letter came.
local function note_dead(head, id)
  local read, place = pcall(cmsgpack.unpack, head)
  -- A head that cannot be read is not counted, and not when it goes either.
  if not read or type(place) ~= 'table' or not place[4] then
    return
  end
  local hour = math.floor(tonumber(string.match(id, '^%d+')) / 3600000)
  for _, name in ipairs({'type:' .. place[3], 'tenant:' .. place[4], 'hour:' .. hour}) do
    count_changes[name] = (count_changes[name] or 0) + 1
  end
  local cause = place[1] .. ' ' .. place[2]
  local change = cause_changes[cause] or {number = 0, first = id}
  cause_changes[cause] = change
  change.number = change.number + 1
  change.last = id
end

-- Writes what was noted. A call of a command costs more than what the command does, so that ids, which
-- need no sum, are written by one.
local function count_dead(counts, causes)
  for name, number in pairs(count_changes) do
    add(counts, name, number)
  end
  local lasts = {}
  for cause, change in pairs(cause_changes) do
    -- It is the first of its cause.
    if add(causes, 'n ' .. cause, change.number) == change.number then
      lasts[#lasts + 1], lasts[#lasts + 2] = 'f ' .. cause, change.first
    end
    lasts[#lasts + 1], lasts[#lasts + 2] = 'l ' .. cause, change.last
  end
  if lasts[1] then
    redis.call('HSET', causes, unpack(lasts))
  end
end
