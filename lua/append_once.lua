-- Appends entries, but skips each message that was appended within the window before.
--
-- Message ids lie in two generations, so that they expire in bulk and need no key each. A
-- generation is a hash. Field 'since' is the time of its creation and 'span' the longest window
-- that a call asked for, both in milliseconds. Every other field is a message's id (16 bytes), and
-- its value is the id of the entry. When the current generation has lasted for its own span and
-- for the span of the previous one, it becomes the previous one. So an id stays for at least one
-- window and at most two. The time in the entry's id decides, to the millisecond, whether a
-- message lies within the window.
--
-- The script reads everything, and so checks every type, before its first write. Among the writes
-- XADD comes first: Redis can refuse it for memory, and does not roll a script back.
--
-- KEYS[1]  the log, a stream or absent
-- KEYS[2]  the current generation of ids, a hash or absent
-- KEYS[3]  the previous generation, a hash or absent
-- ARGV[1]  the window in milliseconds
-- then for each entry:
-- ITEM[1]  the message's id, 16 bytes
-- ITEM[2]  the name of the entry's field
-- ITEM[3]  its value
--
-- Returns for each entry one of: the id of the new entry; {the id of the entry that already has the
-- message}; an error. After an error the script appends nothing more, and the remaining entries get
-- the same error.
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

remember_ids(KEYS[2], KEYS[3], now, window, current[1], current[2], span_before, pairs_added)
return results
