-- Layout 4: topics can have several partitions. A process of before would read and trim partition 0 only.
--
-- Applied when the first such topic of the namespace is created. Nothing stored changes.
--
-- KEYS[1]  the namespace's schema, a hash
-- KEYS[2]  the topic registry, a set or absent
--
-- Returns 1.
redis.call('HSET', KEYS[1], 'layout', 4)
return 1
