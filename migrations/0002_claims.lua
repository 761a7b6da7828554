-- Layout 2: the delivery count of a pending entry is a mark of begun attempts, and claims leave it as
-- it is. A process of before would raise it with every claim.
--
-- Nothing stored changes: a count of layout 1 reads as the number of attempts that layout 1 counted.
--
-- KEYS[1]  the namespace's schema, a hash
-- KEYS[2]  the topic registry, a set or absent
--
-- Returns 1.
redis.call('HSET', KEYS[1], 'layout', 2)
return 1
