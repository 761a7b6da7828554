-- Claims the right to run something once, or returns the result of the run.
--
-- A claim is the bytes C1 C1 'c' and the owner's token. A completion is C1 C1 'd', the length of the
-- owner's token in four digits, the token, and the stored result. MessagePack never begins with C1,
-- so a user's value is neither. A begun claim is C1 C1 'b', the end of its lease in milliseconds since
-- 1970 and the time to live of the mark in milliseconds, both in sixteen digits, and the token. It
-- outlives its lease. The value `true`, as JSON or as
-- MessagePack, means "done, without a result".
--
-- KEYS[1]  the key, a string or absent
-- ARGV[1]  the owner's token
-- ARGV[2]  the claim's lease in milliseconds
--
-- Returns one of: {'claimed'}; {'busy'} while another owner holds the claim; {'begun'} when the lease
-- of a begun claim has ended; {'done', result}; {'done'} where no result was stored; {'value'} for a
-- value that no claim wrote.
local current = redis.call('GET', KEYS[1])
if not current then
  redis.call('SET', KEYS[1], '\193\193c' .. ARGV[1], 'PX', ARGV[2])
  return {'claimed'}
end
local mark = string.sub(current, 1, 3)
if mark == '\193\193c' then
  -- The reply to an earlier claim of this owner may have been lost.
  if string.sub(current, 4) == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return {'claimed'}
  end
  return {'busy'}
end
if mark == '\193\193d' then
  return {'done', string.sub(current, 8 + tonumber(string.sub(current, 4, 7)))}
end
if mark == '\193\193b' then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  return {now < tonumber(string.sub(current, 4, 19)) and 'busy' or 'begun'}
end
return {(current == 'true' or current == '\193\195') and 'done' or 'value'}
