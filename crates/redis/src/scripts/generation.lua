-- KEYS: generation of a partition. ARGV: replication id of the server.
-- Answers the least epoch that its topics may have: a new one when the partition was last seen with another replication id, as
-- messages may have been lost then whose offsets were given already.
local g, e = unpack(redis.call('HMGET', KEYS[1], 'g', 'e'))
if g == ARGV[1] and e then return e end
local time = redis.call('TIME')
local least = string.format('%.0f', math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(e or 0) + 1))
redis.call('HSET', KEYS[1], 'g', ARGV[1], 'e', least)
return least
