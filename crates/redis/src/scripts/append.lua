-- KEYS: stream, state, and the claim of the client message id; without one a key that is not there, so that while a slot of a Cluster moves
-- all messages of a topic are refused alike, and keep their order.
-- ARGV: epoch that the node knows or 0; the partition's least epoch; most messages; ttl in ms; PUBLISH or SPUBLISH; channel; head of
-- the news; message; dedup window in ms, or 0 without a client message id; rest of the answer; and of an inbox: most messages and ttl in
-- ms while its user has never signed in, and most bytes.
-- Answers 'N<id>' for a message that was stored now, 'B<answer>' for one that was stored before. What most messages need stands
-- here, before the functions that all scripts of topics have; the rest follows in append_anew.lua.
local stream, state, claim = KEYS[1], KEYS[2], ARGV[9] ~= '0' and KEYS[3]
if claim then
  local before = redis.call('SET', claim, '', 'NX', 'GET', 'PX', ARGV[9])
  -- An empty one is left by a server that failed within this script.
  if before and before ~= '' then return 'B' .. before end
end
local most, ttl = ARGV[3], ARGV[4]
if ARGV[11] and redis.call('HEXISTS', state, 'k') == 0 then most, ttl = ARGV[11], ARGV[12] end
-- Large messages: looked at with every tenth, about.
local function bound_bytes()
  local bytes, bound = redis.pcall('MEMORY', 'USAGE', stream), tonumber(ARGV[13])
  if type(bytes) == 'number' and bytes > bound then
    redis.call('XTRIM', stream, 'MAXLEN', math.floor(redis.call('XLEN', stream) * bound / bytes * 0.9))
  end
end
local function finish(id)
  if claim then redis.call('SET', claim, id .. ' ' .. ARGV[10], 'PX', ARGV[9]) end
  if ARGV[13] and string.byte(id, -1) == 57 then bound_bytes() end
  redis.call('PEXPIRE', stream, ttl)
  redis.call('PEXPIRE', state, ttl)
  redis.call(ARGV[5], ARGV[6], ARGV[7] .. id .. ' ' .. ARGV[8])
  return 'N' .. id
end
local known, id = tonumber(ARGV[1]), false
if known > 0 and known >= tonumber(ARGV[2]) then
  id = redis.pcall('XADD', stream, 'NOMKSTREAM', 'MAXLEN', '~', most, ARGV[1] .. '-*', 'm', ARGV[8])
  if type(id) == 'string' then
    if string.sub(id, -2) ~= '-0' then return finish(id) end
    -- The first place of an epoch is given below alone: this stream is of an older one, begun by a server that has forgotten the epoch.
    redis.call('XDEL', stream, id)
    if redis.call('XLEN', stream) == 0 then redis.call('DEL', stream) end
  end
end
