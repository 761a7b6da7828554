-- Extends, begins, completes or releases a claim, if the caller still owns it.
--
-- A begun claim names the end of its lease in its value (see once_claim.lua) and lives longer.
--
-- KEYS[1]  the key
-- ARGV[1]  the owner's token
-- ARGV[2]  'extend', 'begin', 'complete' or 'release'
-- ARGV[3]  extend: the lease in milliseconds; begin: how long to keep the mark; complete: how long to
--          keep the result, '0' for ever
-- ARGV[4]  begin: the lease in milliseconds; complete: the result's bytes
--
-- Returns 1 when done, 0 when the claim has expired or belongs to another owner.
local current = redis.call('GET', KEYS[1])
-- A completion contains its owner's token, so the same result of another owner does not match.
local done = ARGV[2] == 'complete'
  and '\193\193d' .. string.format('%04d', #ARGV[1]) .. ARGV[1] .. ARGV[4]
local begun = current and string.sub(current, 1, 3) == '\193\193b'
  and string.sub(current, 36) == ARGV[1]
if current ~= '\193\193c' .. ARGV[1] and not begun then
  -- The reply to an earlier call with this completion may have been lost.
  return current and current == done and 1 or 0
end
local function mark(lease, ttl)
  -- Longer times have more than sixteen digits.
  lease, ttl = math.min(lease, 1e15), math.min(ttl, 1e15)
  local time = redis.call('TIME')
  local ends = time[1] * 1000 + math.floor(time[2] / 1000) + lease
  local value = '\193\193b' .. string.format('%016d%016d', ends, ttl) .. ARGV[1]
  redis.call('SET', KEYS[1], value, 'PX', string.format('%d', math.max(lease, ttl)))
end
if ARGV[2] == 'begin' then
  mark(tonumber(ARGV[4]), tonumber(ARGV[3]))
elseif ARGV[2] == 'extend' and begun then
  mark(tonumber(ARGV[3]), tonumber(string.sub(current, 20, 35)))
elseif ARGV[2] == 'extend' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
elseif ARGV[2] == 'release' then
  redis.call('DEL', KEYS[1])
elseif ARGV[3] == '0' then
  redis.call('SET', KEYS[1], done)
else
  redis.call('SET', KEYS[1], done, 'PX', ARGV[3])
end
return 1
