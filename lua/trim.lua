-- Removes settled entries from a stream as far as its retention allows, and measures the backlog.
--
-- The floor is the smallest id that a group still needs: its first pending entry, or else the entry
-- after its last delivered one. The script never removes an entry at or above the floor. It compares
-- ids as decimal text: both halves have 64 bits, a Lua number has 53.
--
-- The backlog is what the topic keeps for its groups: the entries from the floor on, and each group's
-- scheduled retries and unsettled redeliveries.
--
-- KEYS[1]  the stream, or absent
-- KEYS[2]  the topic's settings, a hash or absent
-- ARGV[1]  '' to follow the topic's retention, 'settled' to remove everything settled
-- ARGV[2]  the first part of the keys of the topic's groups: the script adds the group and ':retry' or
--          ':redo'; '' to leave the backlog unmeasured
-- ARGV[3]  do nothing when the last call with a pause was less than this many milliseconds ago; '0' for
--          no pause
--
-- Returns {removed entries, remaining entries, backlog, 1 when the topic's settings exist and 0 when
-- not}.
local function number_less(a, b)
  if #a ~= #b then
    return #a < #b
  end
  return a < b
end
local function less(a, b)
  local a_time, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_time, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if a_time ~= b_time then
    return number_less(a_time, b_time)
  end
  return number_less(a_seq, b_seq)
end
local function after(id)
  local time, seq = string.match(id, '^(%d+)-(%d+)$')
  if #seq > 15 then
    return id
  end
  return time .. '-' .. string.format('%.0f', seq + 1)
end

-- Returns the time in an envelope as milliseconds since 1970, or nil.
local function time_of(fields)
  for at = 1, #fields, 2 do
    local decode = ({json = cjson.decode, msgpack = cmsgpack.unpack})[fields[at]]
    local read, envelope = pcall(decode or error, fields[at + 1])
    local text = read and type(envelope) == 'table' and envelope.ts
    if type(text) == 'string' then
      local parts = {string.match(text, '^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)%.?%d*(.*)$')}
      if not parts[1] then
        return nil
      end
      local year, month, day = tonumber(parts[1]), tonumber(parts[2]), tonumber(parts[3])
      -- Days since 1970-01-01, counted in years that begin in March.
      if month <= 2 then
        year = year - 1
      end
      local days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
        + math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 719469
      local sign, hours, minutes = string.match(parts[7], '^([+-])(%d%d):(%d%d)$')
      local offset = sign and (sign == '-' and -60 or 60) * (hours * 60 + minutes) or 0
      return 1000 * (86400 * days + 3600 * parts[4] + 60 * parts[5] + parts[6] - offset)
    end
  end
end

-- Returns the first id that is younger than `oldest` by its envelope's own time, at most the floor. An
-- entry without a time goes with those before it. Looks at 1,000 entries.
local function first_younger(floor, oldest)
  local from, threshold = '-', nil
  for _ = 1, 10 do
    local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 100)
    for _, entry in ipairs(page) do
      local time = time_of(entry[2])
      if floor and not less(entry[1], floor) or time and time >= oldest then
        return threshold or entry[1]
      end
      threshold = after(entry[1])
    end
    if #page < 100 then
      break
    end
    from = '(' .. page[100][1]
  end
  return threshold
end

local settings = redis.call('HMGET', KEYS[2], 'topic', 'retention', 'backlogLimit', 'trimmed', 'partitions')
local known = settings[1] and 1 or 0
-- Each partition has an equal part of the topic's limits.
local partitions = tonumber(settings[5] or '') or 1
local limit = math.ceil((tonumber(settings[3] or '') or math.huge) / partitions)
local retention = ARGV[1] ~= '' and ARGV[1] or settings[2] or 'settled'
local kind, amount = string.match(retention, '^(%a+):(%d+)$')
if kind == 'length' and partitions > 1 then
  amount = string.format('%.0f', math.ceil(amount / partitions))
end
local length = redis.call('XLEN', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = now - (tonumber(settings[4] or '') or 0)
if since >= 0 and since < tonumber(ARGV[3]) then
  return {0, length, 0, known}
end

if length == 0 and ARGV[2] == '' then
  return {0, 0, 0, known}
end

local groups = {}
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    groups[#groups + 1] = named(flat)
  end
end
local floor
for _, group in ipairs(groups) do
  local need = after(group['last-delivered-id'])
  if group['pending'] > 0 then
    local first = redis.call('XPENDING', KEYS[1], group['name'], '-', '+', 1)[1]
    if first and less(first[1], need) then
      need = first[1]
    end
  end
  if not floor or less(need, floor) then
    floor = need
  end
end

-- Before the first write: a key of another type ends the script.
local later = 0
if ARGV[2] ~= '' then
  for _, group in ipairs(groups) do
    local first_part = ARGV[2] .. group['name']
    later = later + redis.call('ZCARD', first_part .. ':retry')
    local stream = first_part .. ':redo'
    if redis.call('XLEN', stream) > 0 then
      local redeliveries = find_group(stream, group['name'])
      if redeliveries then
        later = later + redeliveries['pending'] + lag_of(stream, redeliveries, 2000, 2097152)
      end
    end
  end
end

local removed = 0
-- LIMIT bounds the time of a call. Below the number of entries in one node it would trim nothing.
if length == 0 then
  removed = 0
elseif retention == 'settled' then
  if floor then
    removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', floor, 'LIMIT', 100000)
  end
elseif kind == 'age' then
  local oldest = math.max(now - amount, 0)
  local threshold = string.format('%.0f-0', oldest)
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
  if not less(first, string.format('%.0f-0', now + 1)) then
    -- The ids are ahead of the clock, so they do not tell the age.
    threshold = first_younger(floor, oldest) or '0-0'
  end
  if floor and less(floor, threshold) then
    threshold = floor
  end
  removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', threshold, 'LIMIT', 100000)
elseif kind == 'length' and length > tonumber(amount) then
  if floor then
    -- At most the surplus over the number of entries to keep.
    local most = string.format('%.0f', math.min(length - amount, 100000))
    removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', floor, 'LIMIT', most)
  else
    removed = redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', amount, 'LIMIT', 100000)
  end
end
length = length - removed
if ARGV[3] ~= '0' and known == 1 then
  -- A server whose memory is full refuses this. Then every caller trims.
  redis.pcall('HSET', KEYS[2], 'trimmed', string.format('%.0f', now))
end
if ARGV[2] == '' then
  return {removed, length, 0, known}
end

local backlog = length
if floor and length > 0 then
  -- Trimming removes whole nodes, so few settled entries are left before the floor.
  local settled, all = count(KEYS[1], '-', '(' .. floor, 256, 65536)
  if all then
    backlog = length - settled
  else
    -- Retention keeps many. What the slowest group has to settle is a lower bound.
    backlog = 0
    for _, group in ipairs(groups) do
      local lag = math.min(group['lag'] or length, length)
      if not group['lag'] or lag + group['pending'] >= limit then
        -- Publishing must not be refused for a lag that XINFO overestimates.
        lag = lag_of(KEYS[1], group, 2000, 2097152)
      end
      backlog = math.max(backlog, math.min(lag + group['pending'], length))
    end
  end
end
return {removed, length, backlog + later, known}
