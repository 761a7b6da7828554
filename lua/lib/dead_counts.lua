-- Keeps the counts of a group's dead letters. This text stands in front of the scripts that use it.
--
-- One hash counts types, tenants and hours since 1970, in fields `type:…`, `tenant:…` and `hour:…`.
-- Another hash has three fields for each cause (`reason fingerprint`): `n …` is the number of dead
-- letters, `f …` and `l …` are the first and the last id. A script notes each dead letter and writes
-- the sums once, at its end.

-- Adds to a number in a hash, and returns the sum.
local function add(key, name, number)
  local sum = redis.pcall('HINCRBY', key, name, number)
  if type(sum) == 'table' then
    -- The field is not a number. Overwrite it: an error here would not undo the earlier writes.
    redis.call('HSET', key, name, number)
    return tonumber(number)
  end
  return sum
end

local count_changes, cause_changes = {}, {}

-- Notes a new dead letter.
local function note_dead(head, id)
  local read, parts = pcall(cmsgpack.unpack, head)
  -- An undecodable head is counted neither here nor at its removal.
  if not read or type(parts) ~= 'table' or not parts[4] then
    return
  end
  local hour = math.floor(tonumber(string.match(id, '^%d+')) / 3600000)
  for _, name in ipairs({'type:' .. parts[3], 'tenant:' .. parts[4], 'hour:' .. hour}) do
    count_changes[name] = (count_changes[name] or 0) + 1
  end
  local cause = parts[1] .. ' ' .. parts[2]
  local change = cause_changes[cause] or {number = 0, first = id}
  cause_changes[cause] = change
  change.number = change.number + 1
  change.last = id
end

-- Writes the noted sums. Calling a command costs more than its work, so one HSET writes all the ids.
local function count_dead(counts, causes)
  for name, number in pairs(count_changes) do
    add(counts, name, number)
  end
  local lasts = {}
  for cause, change in pairs(cause_changes) do
    -- The sum equals the change, so these are the first dead letters of the cause.
    if add(causes, 'n ' .. cause, change.number) == change.number then
      lasts[#lasts + 1], lasts[#lasts + 2] = 'f ' .. cause, change.first
    end
    lasts[#lasts + 1], lasts[#lasts + 2] = 'l ' .. cause, change.last
  end
  if lasts[1] then
    redis.call('HSET', causes, unpack(lasts))
  end
end
