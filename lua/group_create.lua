-- Creates a group on a topic's log and on the group's own redelivery stream. An existing group keeps
-- its cursors.
--
-- For a group created at `$` Redis does not know the lag until the group has read to the end once.
-- The script therefore tells it how many entries lie behind the group. It does so too for an owned group at
-- the beginning: Redis learns the number from the first read of a shared group, and an owned group has none.
--
-- KEYS[1]  the log, a stream or absent
-- KEYS[2]  the group's redelivery stream, or absent
-- KEYS[3]  the topic's settings, a hash or absent
-- ARGV[1]  the group
-- ARGV[2]  where the group starts in the log: 'beginning' or 'next'
-- ARGV[3]  'shared' or 'owned'
--
-- Returns 1 when the group was created, 0 when it existed, -1 when it exists as the other kind.
local wrong = check_types({'stream', 'stream', 'hash'})
if wrong then
  return wrong
end
local kind_field = 'owned:' .. ARGV[1]
local is_owned = redis.call('HGET', KEYS[3], kind_field) == '1'
if is_owned and ARGV[3] ~= 'owned' then
  return -1
end
-- Redeliveries belong to the group already, so it always reads them from the beginning.
local create = {'XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM'}
local commands = {create, {'XGROUP', 'CREATE', KEYS[2], ARGV[1], '0', 'MKSTREAM'}}
for lane, command in ipairs(commands) do
  -- An absent stream has no entries to skip.
  local stream, behind = {['last-generated-id'] = '0-0', ['entries-added'] = 0, length = 0}, nil
  if redis.call('EXISTS', KEYS[lane]) == 1 then
    stream = named(redis.call('XINFO', 'STREAM', KEYS[lane]))
  end
  if command == create and ARGV[2] == 'next' then
    command[5], behind = stream['last-generated-id'], stream['entries-added']
  elseif ARGV[3] == 'owned' then
    behind = stream['entries-added'] - stream['length']
  end
  if behind then
    command[7], command[8] = 'ENTRIESREAD', string.format('%.0f', behind)
  end
end
local created = 1
for _, command in ipairs(commands) do
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
