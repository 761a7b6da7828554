-- Creates a group on a topic's log and on its own redo lane; one that exists keeps its cursors.
--
-- Created at `$` alone, Redis cannot tell the group's lag until it has once read to the end: it is
-- told how many entries lie behind the group.
--
-- KEYS[1]  the log, a stream or absent
-- KEYS[2]  the group's redo lane, a stream or absent
-- ARGV[1]  the group
-- ARGV[2]  'beginning' or 'next': where it starts in the log
--
-- Returns 1 when the group was created, 0 when it existed.
-- A key of another type is found before anything is written.
for at, kind in pairs({'stream', 'stream'}) do
  local held = redis.call('TYPE', KEYS[at]).ok
  if held ~= 'none' and held ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. held .. ', not a ' .. kind)
  end
end
local create = {'XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM'}
if ARGV[2] == 'next' then
  local flat = redis.pcall('XINFO', 'STREAM', KEYS[1])
  if flat.err and not string.find(flat.err, 'no such key', 1, true) then
    return flat
  end
  -- A log that is not there yet has nothing to leave out.
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
-- What comes back to the group was fetched by it before: it is never skipped.
for _, command in ipairs({create, {'XGROUP', 'CREATE', KEYS[2], ARGV[1], '0', 'MKSTREAM'}}) do
  local done = redis.pcall(unpack(command))
  if done.err then
    if string.sub(done.err, 1, 9) ~= 'BUSYGROUP' then
      return done
    end
    if command == create then
      created = 0
    end
  end
end
return created
