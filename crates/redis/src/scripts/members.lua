-- KEYS: nodes of the room, members of the room on this node. ARGV: run, sessions in the room on this node, ttl in ms, 1 if what was
-- told before does not count; then session and member (or '' if it has left) of each change.
local nodes, members = KEYS[1], KEYS[2]
if ARGV[4] == '1' then redis.call('DEL', members) end
if ARGV[2] == '0' then
  redis.call('DEL', members)
  redis.call('HDEL', nodes, ARGV[1])
  return 0
end
local time = redis.call('TIME')
redis.call('HSET', nodes, ARGV[1], ARGV[2] .. ' ' .. time[1])
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', members, ARGV[i])
  else
    redis.call('HSET', members, ARGV[i], ARGV[i + 1])
  end
end
redis.call('PEXPIRE', nodes, ARGV[3])
redis.call('PEXPIRE', members, ARGV[3])
return 1
