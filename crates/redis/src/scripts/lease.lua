-- KEYS: leases, number. ARGV: run, lease in ms (0 ends it), how long leases that have ended are known in ms.
-- Answers 1, or 0 if another run has the number; the server's time in ms; then run and end of each lease.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder = redis.call('GET', KEYS[2])
local has = not holder or holder == ARGV[1]
if has then
  if ARGV[2] == '0' then
    redis.call('DEL', KEYS[2])
  else
    redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  end
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[3]))
local answer = {has and 1 or 0, string.format('%.0f', now)}
for _, part in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')) do answer[#answer + 1] = part end
return answer
