-- Creates the settings of a topic on one of its partitions, or returns the existing ones.
--
-- Topic `orders` in namespace `shop` and topic `shop:orders` without a namespace have the same tag,
-- `{shop:orders}`. The settings name their owner, so that two topics never share keys unnoticed.
--
-- KEYS[1]  the topic's settings, a hash or absent
-- ARGV[1]  the namespace, '' for none
-- ARGV[2]  the topic
-- ARGV[3]  retention
-- ARGV[4]  backlog limit
-- ARGV[5]  number of partitions
-- ARGV[6]  number of the partition, from 0
--
-- Returns {'ok', retention, backlog limit, number of partitions} as now in force, or {'taken', namespace,
-- topic} when the keys belong to another topic.
local found = redis.call('HMGET', KEYS[1], 'namespace', 'topic', 'retention', 'backlogLimit',
  'partitions')
if not found[2] then
  redis.call('HSET', KEYS[1], 'layout', 1, 'partitions', ARGV[5], 'namespace', ARGV[1],
    'topic', ARGV[2], 'retention', ARGV[3], 'backlogLimit', ARGV[4])
  if ARGV[6] ~= '0' then
    redis.call('HSET', KEYS[1], 'partition', ARGV[6])
  end
  return {'ok', ARGV[3], ARGV[4], ARGV[5]}
end
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] then
  return {'taken', found[1] or '', found[2]}
end
return {'ok', found[3] or 'settled', found[4] or '0', found[5] or '1'}
