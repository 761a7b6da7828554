-- Creates a topic's settings, or returns those that hold.
--
-- `{shop:orders}` is the tag of topic `orders` in namespace `shop` and of topic `shop:orders` in
-- none: the settings name their owner, so that two topics never share keys unnoticed.
--
-- KEYS[1]  the topic's settings, a hash or absent
-- ARGV[1]  the namespace, '' for none
-- ARGV[2]  the topic
-- ARGV[3]  retention
-- ARGV[4]  backlog limit
--
-- Returns {'ok', retention, backlog limit} as they hold, or {'taken', namespace, topic} when the
-- keys belong to another topic.
local held = redis.call('HMGET', KEYS[1], 'namespace', 'topic', 'retention', 'backlogLimit')
if not held[2] then
  redis.call('HSET', KEYS[1], 'layout', 1, 'partitions', 1, 'namespace', ARGV[1],
    'topic', ARGV[2], 'retention', ARGV[3], 'backlogLimit', ARGV[4])
  return {'ok', ARGV[3], ARGV[4]}
end
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return {'taken', held[1] or '', held[2]}
end
return {'ok', held[3] or 'settled', held[4] or '0'}
