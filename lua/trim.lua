-- Removes settled entries from a stream as far as its retention allows, and measures the backlog.
--
-- The floor is the smallest id that a group still needs: its first pending entry, or else the entry
-- after its last delivered one. The script never removes an entry at or above the floor. It compares
-- ids as decimal text: both halves have 64 bits, a Lua number has 53.
--
-- KEYS[1]  the stream, or absent
-- KEYS[2]  the topic's settings, a hash or absent
-- ARGV[1]  '' to follow the topic's retention, 'settled' to remove everything settled
--
-- Returns {removed entries, remaining entries, entries that the slowest group has not settled, 1 when
-- the topic's settings exist and 0 when not}.
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

local settings = redis.call('HMGET', KEYS[2], 'topic', 'retention', 'backlogLimit')
local known = settings[1] and 1 or 0
local limit = tonumber(settings[3] or '') or math.huge
local retention = ARGV[1] ~= '' and ARGV[1] or settings[2] or 'settled'
local kind, amount = string.match(retention, '^(%a+):(%d+)$')
local length = redis.call('XLEN', KEYS[1])
if kind == 'length' and length <= tonumber(amount) then
  -- Nothing to remove: only measure the backlog.
  kind = 'none'
end
if length == 0 then
  return {0, 0, 0, known}
end

local floor
local backlog = 0
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = named(flat)
  local lag = math.min(group['lag'] or length, length)
  if not group['lag'] or lag + group['pending'] >= limit then
    -- Publishing must not be refused for a lag that XINFO overestimates.
    lag = lag_of(KEYS[1], group, 2000, 2097152)
  end
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
  backlog = math.max(backlog, math.min(lag + group['pending'], length))
end
if not floor then
  backlog = length
end

local removed = 0
-- LIMIT bounds the time of a call. Below the number of entries in one node it would trim nothing.
if retention == 'settled' then
  if floor then
    removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', floor, 'LIMIT', 100000)
  end
elseif kind == 'age' then
  local time = redis.call('TIME')
  local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - amount
  local threshold = string.format('%.0f-0', math.max(oldest, 0))
  if floor and less(floor, threshold) then
    threshold = floor
  end
  removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', threshold, 'LIMIT', 100000)
elseif kind == 'length' then
  if floor then
    -- At most the surplus over the number of entries to keep.
    local most = string.format('%.0f', math.min(length - amount, 100000))
    removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', floor, 'LIMIT', most)
  else
    removed = redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', amount, 'LIMIT', 100000)
  end
end
return {removed, length - removed, backlog, known}
