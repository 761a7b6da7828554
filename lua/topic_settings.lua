-- Changes the settings of a topic on one of its partitions.
--
-- KEYS[1]  the topic's settings, a hash or absent
-- ARGV[1]  the namespace, '' for none
-- ARGV[2]  the topic
-- ARGV[3]  retention
-- ARGV[4]  backlog limit
--
-- Returns {'ok', retention, backlog limit, number of partitions} as they were before, {'taken', namespace,
-- topic} when the keys belong to another topic, or an empty list when the topic does not exist.
local found = redis.call('HMGET', KEYS[1], 'namespace', 'topic', 'retention', 'backlogLimit',
  'partitions')
if not found[2] then
  return {}
end
-- The number of partitions may follow the name.
local name = string.match(found[2], '^[^/]*')
if found[1] ~= ARGV[1] or name ~= ARGV[2] then
  return {'taken', found[1] or '', name}
end
redis.call('HSET', KEYS[1], 'retention', ARGV[3], 'backlogLimit', ARGV[4])
return {'ok', found[3] or 'settled', found[4] or '0', found[5] or '1'}
