-- Layout 6: groups can be owned. A process of before would read such a group past its owners.
--
-- Applied when the first owned group of the namespace is created. Nothing stored changes.
--
-- KEYS[1]  the namespace's schema, a hash
-- KEYS[2]  the topic registry, a set or absent
--
-- Returns 1.
redis.call('HSET', KEYS[1], 'layout', 6)
return 1
