-- Removes a topic and its entries, if it has no groups.
--
-- Check and removal must be one step: a consumer that joins between two would find its group gone.
--
-- KEYS[1]  the log, a stream or absent
-- KEYS[2]  the topic's settings, a hash or absent
-- KEYS[3]  the ids of messages published once, a hash or absent
-- KEYS[4]  their earlier generation, a hash or absent
-- KEYS[5]  the messages for later by due time, a sorted set or absent
-- KEYS[6]  these messages, a hash or absent
-- KEYS[7]  their bell, a stream or absent
-- ARGV[1]  the namespace, '' for none
-- ARGV[2]  the topic
--
-- Returns {'ok', 1 when the topic was removed and 0 when it has groups, entries, groups}, {'taken',
-- namespace, topic} when the keys belong to another topic, or an empty list when it does not exist. Every
-- part is a text.
local log = redis.call('EXISTS', KEYS[1]) == 1
local found = redis.call('HMGET', KEYS[2], 'namespace', 'topic')
-- The number of partitions may follow the name.
local name = found[2] and string.match(found[2], '^[^/]*')
if name and (found[1] ~= ARGV[1] or name ~= ARGV[2]) then
  return {'taken', found[1] or '', name}
end
if not log and not found[2] and redis.call('EXISTS', KEYS[5]) == 0 then
  return {}
end
local entries, groups = 0, 0
if log then
  entries, groups = redis.call('XLEN', KEYS[1]), #redis.call('XINFO', 'GROUPS', KEYS[1])
end
local removed = '0'
if groups == 0 then
  -- UNLINK frees a long log outside the server's main thread.
  redis.call('UNLINK', unpack(KEYS))
  removed = '1'
end
return {'ok', removed, tostring(entries), tostring(groups)}
