-- Reads how far the owners of a partition have come, and which failed messages keep their place there.
--
-- It looks at 4096 notes at most. An owner keeps fewer, because it reads 1024 entries of a stream ahead.
--
-- KEYS[1]  the cursor, a hash or absent
-- KEYS[2]  the notes of unsettled messages and the marks of settled ones, a hash or absent
-- ARGV[1]  how many of the failed messages to return with their content, the oldest first
-- ARGV[2]  after how many bytes of content to stop
--
-- Returns {now in milliseconds, token or '', owner or '', low, high and done ranges of the log and of the
-- redelivery stream or '', {message, due time, content or '', …}}: the oldest message first.
local kept, seen, scan = {}, {}, '0'
local looked = 0
repeat
  local page = redis.call('HSCAN', KEYS[2], scan, 'COUNT', 100)
  scan = page[1]
  for at = 1, #page[2], 2 do
    local message = page[2][at]
    local due = string.match(page[2][at + 1], '^%d+:%d+:(%d+):')
    if due and not seen[message] then
      local millis, number = string.match(message, ':(%d+)%-(%d+)$')
      seen[message] = true
      kept[#kept + 1] = {message, due, tonumber(millis) or 0, tonumber(number) or 0}
    end
    looked = looked + 1
  end
until scan == '0' or looked >= 4096
-- The parts of an id are exact: both lie below 2^53.
table.sort(kept, function(one, other)
  if one[3] ~= other[3] then
    return one[3] < other[3]
  end
  if one[4] ~= other[4] then
    return one[4] < other[4]
  end
  return one[1] < other[1]
end)

local flat, bytes = {}, 0
for at, one in ipairs(kept) do
  local content = ''
  if at <= tonumber(ARGV[1]) and bytes < tonumber(ARGV[2]) then
    content = string.match(redis.call('HGET', KEYS[2], one[1]), '^%d+:%d+:%d+:(.*)$')
    bytes = bytes + #content
  end
  flat[#flat + 1], flat[#flat + 2], flat[#flat + 3] = one[1], one[2], content
end
local time = redis.call('TIME')
local answer = {string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))}
local fields = {'token', 'owner', 'log:low', 'log:high', 'log:done', 'redo:low', 'redo:high', 'redo:done'}
for _, value in ipairs(redis.call('HMGET', KEYS[1], unpack(fields))) do
  answer[#answer + 1] = value or ''
end
answer[#answer + 1] = flat
return answer
