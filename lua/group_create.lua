-- Creates a group on a topic's log and on the group's own redelivery stream. An existing group keeps
-- its cursors.
--
-- For a group created at `$` Redis does not know the lag until the group has read to the end once.
-- The script therefore tells it how many entries lie behind the group.
--
-- KEYS[1]  the log, a stream or absent
-- KEYS[2]  the group's redelivery stream, or absent
-- KEYS[3]  the topic's settings, a hash or absent
-- ARGV[1]  the group
-- ARGV[2]  where the group starts in the log: 'beginning' or 'next'
-- ARGV[3]  'shared' or 'owned'
--
-- Returns 1 when the group was created, 0 when it existed, -1 when it exists as the other kind.
-- Check every key's type before the first write: Redis does not roll a script back.
for at, kind in pairs({'stream', 'stream', 'hash'}) do
  local found = redis.call('TYPE', KEYS[at]).ok
  if found ~= 'none' and found ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. found .. ', not a ' .. kind)
  end
end
local kind_field = 'owned:' .. ARGV[1]
local is_owned = redis.call('HGET', KEYS[3], kind_field) == '1'
if is_owned and ARGV[3] ~= 'owned' then
  return -1
end
local create = {'XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM'}
if ARGV[2] == 'next' then
  local flat = redis.pcall('XINFO', 'STREAM', KEYS[1])
  if flat.err and not string.find(flat.err, 'no such key', 1, true) then
    return flat
  end
  -- An absent log has no entries to skip.
  if not flat.err then
    local log = {}
    for at = 1, #flat, 2 do
      log[flat[at]] = flat[at + 1]
    end
    create[5] = log['last-generated-id']
    create[7], create[8] = 'ENTRIESREAD', string.format('%.0f', log['entries-added'])
  end
end
local created = 1
-- Redeliveries belong to the group already, so it always reads them from the beginning.
for _, command in ipairs({create, {'XGROUP', 'CREATE', KEYS[2], ARGV[1], '0', 'MKSTREAM'}}) do
  local done = redis.pcall(unpack(command))
  if done.err then
    if string.sub(done.err, 1, 9) ~= 'BUSYGROUP' then
      return done
    end
    if command == create then
      if ARGV[3] == 'owned' and not is_owned then
        return -1
      end
      created = 0
    end
  end
end
if ARGV[3] == 'owned' and not is_owned then
  redis.call('HSET', KEYS[3], kind_field, '1')
end
return created
