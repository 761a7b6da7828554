-- Removes scheduled retries before their time: runs them now, or cancels them.
--
-- The script writes the redelivery entry before it removes the retry. XADD in a script wakes blocked
-- readers.
--
-- KEYS[1]  the group's retries by due time, a sorted set
-- KEYS[2]  their redeliveries, a hash
-- KEYS[3]  the group's redelivery stream
-- ARGV[1]  'run' to move them to the redelivery stream, 'cancel' to discard them
-- then for each retry:
-- ITEM[1]  its member
--
-- Returns for each retry 1, or 0 when it is not scheduled. Also 0 for a retry to run whose redelivery
-- is gone: promote.lua counts it when it is due.
if ARGV[1] ~= 'run' and ARGV[1] ~= 'cancel' then
  return redis.error_reply('ERR unknown action ' .. ARGV[1])
end
local done = {}
for at = 2, #ARGV do
  local member = ARGV[at]
  local scheduled = redis.call('ZSCORE', KEYS[1], member)
  local body = scheduled and ARGV[1] == 'run' and redis.call('HGET', KEYS[2], member)
  if scheduled and (body or ARGV[1] == 'cancel') then
    if body then
      redis.call('XADD', KEYS[3], '*', 'parcel', body)
    end
    redis.call('HDEL', KEYS[2], member)
    redis.call('ZREM', KEYS[1], member)
    done[#done + 1] = 1
  else
    done[#done + 1] = 0
  end
end
return done
