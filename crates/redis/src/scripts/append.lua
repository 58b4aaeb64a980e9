-- KEYS: stream, state, and the claim of the client message id; without one a key that is not there, so that while a slot of a Cluster moves
-- all messages of a topic are refused alike, and keep their order.
-- ARGV: epoch that the node knows or 0; the partition's least epoch; most messages; ttl in ms; PUBLISH or SPUBLISH; channel; head of
-- the news; message; dedup window in ms, or 0 without a client message id; rest of the answer.
-- Answers 'N<id>' for a message that was stored now, 'B<answer>' for one that was stored before. What most messages need stands
-- here, before the functions that all scripts of topics have; the rest follows in append_anew.lua.
local stream, state, claim = KEYS[1], KEYS[2], ARGV[9] ~= '0' and KEYS[3]
if claim then
  local before = redis.call('SET', claim, '', 'NX', 'GET', 'PX', ARGV[9])
  -- An empty one is left by a server that failed within this script.
  if before and before ~= '' then return 'B' .. before end
end
local function finish(id)
  if claim then redis.call('SET', claim, id .. ' ' .. ARGV[10], 'PX', ARGV[9]) end
  redis.call('PEXPIRE', stream, ARGV[4])
  redis.call('PEXPIRE', state, ARGV[4])
  redis.call(ARGV[5], ARGV[6], ARGV[7] .. id .. ' ' .. ARGV[8])
  return 'N' .. id
end
local epoch, id = tonumber(ARGV[1]), false
if epoch > 0 and epoch >= tonumber(ARGV[2]) then
  id = redis.pcall('XADD', stream, 'NOMKSTREAM', 'MAXLEN', '~', ARGV[3], ARGV[1] .. '-*', 'm', ARGV[8])
  if type(id) == 'string' then return finish(id) end
end
