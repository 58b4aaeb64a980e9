-- KEYS: stream, state. ARGV: epoch, floor, lost, known (0 or 1), ttl in ms, runs that live, run and shard of the
-- node that tells it, PUBLISH or SPUBLISH, the topic's channel, head of the news that it has changed, number of devices, then name,
-- fence, cursor, away (or -), skipped (or -) of each, then names of devices that are to be forgotten.
-- Answers 1, or 0 if the topic has another epoch. Other nodes are told when a device is new or not known any more.
local stream, state = KEYS[1], KEYS[2]
local e, f, l, g = unpack(redis.call('HMGET', state, 'e', 'f', 'l', 'g'))
if e ~= ARGV[1] then return 0 end
local epoch, sequence = newest(stream)
local last = 0
if epoch and whole(epoch) == e then last = sequence + 1 end
local floor, lost = math.max(mark(f), math.min(mark(ARGV[2]), last)), math.max(mark(l), math.min(mark(ARGV[3]), last))
redis.call('HSET', state, 'f', whole(floor), 'l', whole(math.min(lost, floor)))
if ARGV[4] == '1' then redis.call('HSET', state, 'k', 1) end
local changed = false
local count = tonumber(ARGV[12])
for i = 13 + 5 * count, #ARGV do
  local value = redis.call('HGET', state, 'd:' .. ARGV[i])
  local d = value and device(value)
  -- One that has a session by now is not forgotten, and what it has not read is not missed by others.
  if d and not is_held(d, ARGV[6]) then
    redis.call('HDEL', state, 'd:' .. ARGV[i])
    changed = true
    if d.cursor ~= '-' and (not g or mark(d.cursor) < mark(g)) then
      g = d.cursor
      redis.call('HSET', state, 'g', g)
    end
  end
end
for i = 13, 12 + 5 * count, 5 do
  local name, fence = ARGV[i], ARGV[i + 1]
  local value = redis.call('HGET', state, 'd:' .. name)
  local d = value and device(value) or {fence = fence, run = '-', shard = '-', session = '-'}
  if tonumber(fence) >= tonumber(d.fence) then
    -- If the claim was lost with Redis, the node and the shard of the session are known, and its number is not.
    if tonumber(fence) > tonumber(d.fence) or d.run == '-' then
      d.run, d.shard, d.session = '-', '-', '-'
      if ARGV[i + 3] == '-' then d.run, d.shard, d.session = ARGV[7], ARGV[8], '0' end
    end
    if not d.cursor or d.cursor == '-' then changed = true end
    d.fence, d.cursor, d.away, d.skipped = fence, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    put_device(state, name, d)
  end
end
floor = raise_floor(stream, state, last, ARGV[6])
if epoch and last > 0 then trim(stream, e, floor) end
keep(ARGV[5], stream, state)
if changed then redis.call(ARGV[9], ARGV[10], ARGV[11]) end
return 1
