-- KEYS: generation of a partition. ARGV: replication id of the server; the newest epoch that the node has heard of from a server with
-- another replication id, or 0.
-- Answers the least epoch that its topics may have: a new one when the partition was last seen with another replication id, as
-- messages may have been lost then whose offsets were given already. It is above all epochs that the node knows, also where the
-- clock of this server is behind that of the one before.
local g, e = unpack(redis.call('HMGET', KEYS[1], 'g', 'e'))
local known = tonumber(ARGV[2])
if g == ARGV[1] and e and tonumber(e) > known then return e end
local time = redis.call('TIME')
local least = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(e or 0) + 1, known + 1)
least = string.format('%.0f', least)
redis.call('HSET', KEYS[1], 'g', ARGV[1], 'e', least)
return least
