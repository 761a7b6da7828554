-- Compare and set: replaces or deletes a value only if it equals, byte for byte, the value that the
-- caller expects.
--
-- KEYS[1]  the key, a string or absent
-- ARGV[1]  '1' when the caller expects a value, '0' when it expects the key to be absent
-- ARGV[2]  the expected bytes, '' when absent
-- ARGV[3]  the new bytes
-- ARGV[4]  time to live in milliseconds, '0' for none; 'delete' to delete the value instead
--
-- Returns {1} when set or deleted, {0, current bytes} when the value differs, {0} when the key is absent.
local current = redis.call('GET', KEYS[1])
local matches
if ARGV[1] == '1' then
  matches = current == ARGV[2]
else
  matches = not current
end
if not matches then
  if current then
    return {0, current}
  end
  return {0}
end
if ARGV[4] == 'delete' then
  redis.call('DEL', KEYS[1])
elseif ARGV[4] == '0' then
  redis.call('SET', KEYS[1], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return {1}
