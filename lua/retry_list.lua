-- Lists scheduled retries or messages for later, earliest first, after a position in this order.
--
-- They leave at the front at any time, so a position is a due time and a member, never a rank.
-- Members with the same due time are in the order of their bytes; Lua's own comparison uses the locale.
--
-- KEYS[1]  the group's retries, or the topic's messages for later, by due time, a sorted set
-- KEYS[2]  their redeliveries or bodies, a hash
-- ARGV[1]  the due time of the position, '' to begin at the front
-- ARGV[2]  the member of the position
-- ARGV[3]  how many to list at most
-- ARGV[4]  after how many bytes of redeliveries or bodies to stop
--
-- Returns {the time in milliseconds, {member, due time, redelivery or body}, …}.
local function is_after(a, b)
  for at = 1, math.min(#a, #b) do
    local one, other = string.byte(a, at), string.byte(b, at)
    if one ~= other then
      return one > other
    end
  end
  return #a > #b
end

local first = 0
if ARGV[1] ~= '' then
  first = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[1])
  local high = redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[1])
  while first < high do
    local middle = math.floor((first + high) / 2)
    if is_after(redis.call('ZRANGE', KEYS[1], middle, middle)[1], ARGV[2]) then
      high = middle
    else
      first = middle + 1
    end
  end
end

local time = redis.call('TIME')
local result = {time[1] * 1000 + math.floor(time[2] / 1000)}
local found = redis.call('ZRANGE', KEYS[1], first, first + ARGV[3] - 1, 'WITHSCORES')
local bytes = 0
for at = 1, #found, 2 do
  if bytes >= tonumber(ARGV[4]) then
    break
  end
  local body = redis.call('HGET', KEYS[2], found[at]) or ''
  bytes = bytes + #body
  result[#result + 1] = {found[at], found[at + 1], body}
end
return result
