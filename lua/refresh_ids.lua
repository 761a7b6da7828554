-- Writes the end of life of both generations of message ids once more, unchanged.
--
-- WAIT and WAITAOF wait for what their own connection has written. A publish that meets a message which
-- an earlier call has appended writes nothing, so it calls this script to have something to wait for:
-- a replica that has this write has the older entry as well.
--
-- KEYS[1]  the current generation of ids, a hash or absent
-- KEYS[2]  the previous generation, a hash or absent
--
-- Returns how many of the keys were written.
local written = 0
for _, key in ipairs(KEYS) do
  local ends = redis.call('PEXPIRETIME', key)
  if ends > 0 then
    written = written + redis.call('PEXPIREAT', key, ends)
  end
end
return written
