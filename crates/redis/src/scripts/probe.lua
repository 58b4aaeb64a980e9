-- KEYS: none. ARGV: the node's channel, payload. Answers how many were told.
return redis.call('PUBLISH', ARGV[1], ARGV[2])
