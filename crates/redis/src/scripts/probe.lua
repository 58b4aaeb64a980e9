-- KEYS: generation of a partition, so that it is asked of the master that has its slot. ARGV: the node's channel in the partition, payload.
-- Answers the server's time in ms.
redis.call('SPUBLISH', ARGV[1], ARGV[2])
local time = redis.call('TIME')
return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
