-- Appends entries, except those whose message has been appended within the window before.
--
-- Ids lie in two generations, so that they leave in bulk and cost no key each. A generation is a
-- hash: 'since' is when it was begun, 'span' the longest window that it was asked for, both in
-- milliseconds; every other field is a message's id, 16 bytes, with the id of its entry. A
-- generation that has lasted for its own span and for that of the one before becomes the one
-- before. So an id stays for its window at least and for two at most. Whether it is within the window
-- is told by the time in the entry's id, to the millisecond.
--
-- Everything is read, and with it every type checked, before the first write. XADD comes first
-- of the writes: it is the one that can be refused, and Redis does not roll a script back.
--
-- KEYS[1]  the log, a stream or absent
-- KEYS[2]  the current generation of ids, a hash or absent
-- KEYS[3]  the generation before it, a hash or absent
-- ARGV[1]  the window in milliseconds
-- then for each entry:
-- ITEM[1]  the message's id, 16 bytes
-- ITEM[2]  the name of the entry's field
-- ITEM[3]  its value
--
-- Returns for each entry its id, or {the id of the entry that the message has already}, or an
-- error; after an error nothing more is appended, and the rest get the same one.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window = tonumber(ARGV[1])
local ids = {}
for at = 2, #ARGV, 3 do
  ids[#ids + 1] = ARGV[at]
end
local current = redis.call('HMGET', KEYS[2], 'since', 'span', unpack(ids))
local span_before = redis.call('HGET', KEYS[3], 'span')
local before = span_before and redis.call('HMGET', KEYS[3], unpack(ids)) or {}

local results, added, pairs_added, refused = {}, {}, {}, nil
for at, id in ipairs(ids) do
  local known = added[id] or current[at + 2] or before[at]
  if refused then
    results[at] = refused
  elseif known and now - string.match(known, '^%d+') < window then
    results[at] = {known}
  else
    local entry = redis.pcall('XADD', KEYS[1], '*', ARGV[3 * at], ARGV[3 * at + 1])
    if type(entry) == 'table' then
      refused = entry
    else
      added[id] = entry
      pairs_added[#pairs_added + 1] = id
      pairs_added[#pairs_added + 1] = entry
    end
    results[at] = entry
  end
end
if #pairs_added == 0 then
  return results
end

local since, span = tonumber(current[1] or now), tonumber(current[2] or 0)
span_before = tonumber(span_before or 0)
if span > 0 and now - since >= math.max(span, span_before) then
  -- RENAME alone would free what it replaces at once, and that can be a million ids.
  redis.call('UNLINK', KEYS[3])
  redis.call('RENAME', KEYS[2], KEYS[3])
  since, span, span_before = now, 0, span
end
if window > span then
  redis.call('HSET', KEYS[2], 'since', string.format('%.0f', since),
    'span', string.format('%.0f', window))
  -- Its last id comes at the end of its span, and stays for a window.
  local ends = since + 2 * math.max(window, span_before)
  redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', ends))
end
redis.call('HSET', KEYS[2], unpack(pairs_added))
return results
