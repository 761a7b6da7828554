-- Creates a topic's settings, or returns the existing ones.
--
-- Topic `orders` in namespace `shop` and topic `shop:orders` without a namespace have the same tag,
-- `{shop:orders}`. The settings name their owner, so that two topics never share keys unnoticed.
--
-- KEYS[1]  the topic's settings, a hash or absent
-- ARGV[1]  the namespace, '' for none
-- ARGV[2]  the topic
-- ARGV[3]  retention
-- ARGV[4]  backlog limit
--
-- Returns {'ok', retention, backlog limit} as now in force, or {'taken', namespace, topic} when the
-- keys belong to another topic.
local found = redis.call('HMGET', KEYS[1], 'namespace', 'topic', 'retention', 'backlogLimit')
if not found[2] then
  redis.call('HSET', KEYS[1], 'layout', 1, 'partitions', 1, 'namespace', ARGV[1],
    'topic', ARGV[2], 'retention', ARGV[3], 'backlogLimit', ARGV[4])
  return {'ok', ARGV[3], ARGV[4]}
end
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] then
  return {'taken', found[1] or '', found[2]}
end
return {'ok', found[3] or 'settled', found[4] or '0'}
