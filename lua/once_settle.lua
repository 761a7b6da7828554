-- Extends, completes or releases a claim, if the caller still owns it.
--
-- KEYS[1]  the key
-- ARGV[1]  the owner's token
-- ARGV[2]  'extend', 'complete' or 'release'
-- ARGV[3]  extend: the lease in milliseconds; complete: how long to keep the result, '0' for ever
-- ARGV[4]  complete: the result's bytes
--
-- Returns 1 when done, 0 when the claim has expired or belongs to another owner.
local current = redis.call('GET', KEYS[1])
-- A completion contains its owner's token, so the same result of another owner does not match.
local done = ARGV[2] == 'complete'
  and '\193\193d' .. string.format('%04d', #ARGV[1]) .. ARGV[1] .. ARGV[4]
if current ~= '\193\193c' .. ARGV[1] then
  -- The reply to an earlier call with this completion may have been lost.
  return current and current == done and 1 or 0
end
if ARGV[2] == 'extend' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
elseif ARGV[2] == 'release' then
  redis.call('DEL', KEYS[1])
elseif ARGV[3] == '0' then
  redis.call('SET', KEYS[1], done)
else
  redis.call('SET', KEYS[1], done, 'PX', ARGV[3])
end
return 1
