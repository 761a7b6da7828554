-- Takes out what waits for its time: to the group's redo lane before its time, or away.
--
-- The entry is written before the retry is removed. XADD in a script wakes blocked readers.
--
-- KEYS[1]  the group's retries by due time, a sorted set
-- KEYS[2]  their bodies, a hash
-- KEYS[3]  the group's redo lane, a stream
-- ARGV[1]  'run' or 'cancel'
-- then for each:
-- ITEM[1]  the member
--
-- Returns for each 1, or 0 when it does not wait.
local done = {}
for at = 2, #ARGV do
  local member = ARGV[at]
  if redis.call('ZSCORE', KEYS[1], member) then
    local body = ARGV[1] == 'run' and redis.call('HGET', KEYS[2], member)
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
