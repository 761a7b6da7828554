-- Creates the settings of a topic on one of its partitions, or returns the existing ones.
--
-- Topic `orders` in namespace `shop` and topic `shop:orders` without a namespace have the same tag,
-- `{shop:orders}`. The settings name their owner, so that two topics never share keys unnoticed. The name
-- of a topic with several partitions ends with their number: a version that does not know partitions then
-- takes the keys for those of another topic, also where it connected before the layout changed.
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
  local name = ARGV[5] == '1' and ARGV[2] or ARGV[2] .. '/' .. ARGV[5]
  redis.call('HSET', KEYS[1], 'layout', 1, 'partitions', ARGV[5], 'namespace', ARGV[1],
    'topic', name, 'retention', ARGV[3], 'backlogLimit', ARGV[4])
  if ARGV[6] ~= '0' then
    redis.call('HSET', KEYS[1], 'partition', ARGV[6])
  end
  return {'ok', ARGV[3], ARGV[4], ARGV[5]}
end
local name = string.match(found[2], '^[^/]*')
if found[1] ~= ARGV[1] or name ~= ARGV[2] then
  return {'taken', found[1] or '', name}
end
return {'ok', found[3] or 'settled', found[4] or '0', found[5] or '1'}
