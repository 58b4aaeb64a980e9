-- KEYS: state. ARGV: user, device, run, shard, session, ttl in ms, prefix of the partition's channels of nodes, until when in Unix ms, most sessions of
-- the user, runs that live.
-- Answers the fence: microseconds since 1970, so that it grows even where the one before was lost. 'L' if other devices of the user
-- have as many sessions as there may be. Nil if it came too late, as after a partition: the node has given it up, and the client may
-- have a newer session elsewhere.
local state, name = KEYS[1], ARGV[2]
if now_ms() > tonumber(ARGV[8]) then return nil end
local held = 0
for _, found in ipairs(devices(state)) do
  if found[1] ~= name and is_held(found[2], ARGV[10]) then held = held + 1 end
end
if held >= tonumber(ARGV[9]) then return 'L' end
local value, q = unpack(redis.call('HMGET', state, 'd:' .. name, 'q'))
local fence = math.max(now_us(), mark(q) + 1)
local d = value and device(value) or {cursor = '-', away = '-', skipped = '-', run = '-'}
if value then fence = math.max(fence, tonumber(d.fence) + 1) end
local run, shard = d.run, d.shard
d.fence, d.away, d.run, d.shard, d.session = whole(fence), '-', ARGV[3], ARGV[4], ARGV[5]
redis.call('HSET', state, 'q', whole(fence))
put_device(state, name, d)
keep(ARGV[6], state)
if run ~= '-' then
  local evict = 'E' .. whole(fence) .. ' ' .. shard .. ' ' .. #ARGV[1] .. ' ' .. ARGV[1] .. name
  redis.call('SPUBLISH', ARGV[7] .. run, evict)
end
return whole(fence)
