-- Extends, completes or releases a claim, fenced by the owner's token.
--
-- KEYS[1]  the key
-- ARGV[1]  the owner's token
-- ARGV[2]  'extend', 'complete' or 'release'
-- ARGV[3]  extend: the lease in milliseconds; complete: how long to remember it, '0' for ever
-- ARGV[4]  complete: the result's bytes
--
-- Returns 1 when done, 0 when the claim has passed to another owner or has expired.
local current = redis.call('GET', KEYS[1])
-- A completion names its owner: another one's, even with the same result, is not this one's.
local done = ARGV[2] == 'complete'
  and '\193\193d' .. string.format('%04d', #ARGV[1]) .. ARGV[1] .. ARGV[4]
if current ~= '\193\193c' .. ARGV[1] then
  -- The reply to the same completion may have been lost on its way.
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
