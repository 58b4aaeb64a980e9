-- KEYS: stream, state. ARGV: device, fence, ttl in ms, runs that live; and, if the session was attached: epoch, cursor, away (or -), skipped (or -).
-- Answers 1 if the claim was the newest one of the device, else 0.
local stream, state, name = KEYS[1], KEYS[2], ARGV[1]
local value, e = unpack(redis.call('HMGET', state, 'd:' .. name, 'e'))
if not value then return 0 end
local d = device(value)
if d.fence ~= ARGV[2] then return 0 end
d.run, d.shard, d.session = '-', '-', '-'
if ARGV[5] and ARGV[5] == e then d.cursor, d.away, d.skipped = ARGV[6], ARGV[7], ARGV[8] end
if d.cursor == '-' then
  redis.call('HDEL', state, 'd:' .. name)
else
  if d.away == '-' then d.away = whole(now_ms()) end
  put_device(state, name, d)
end
local epoch, sequence = newest(stream)
if epoch and whole(epoch) == e then trim(stream, e, raise_floor(stream, state, sequence + 1, ARGV[4])) end
keep(ARGV[3], stream, state)
return 1
