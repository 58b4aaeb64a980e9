-- KEYS: stream, state, and the claim of the client message id if there is one.
-- ARGV: epoch that the node knows or 0; the partition's least epoch; most messages; ttl in ms; PUBLISH or SPUBLISH; channel; head of
-- the news; message; dedup window in ms; rest of the answer.
-- Answers 'N<id>' for a message that was stored now, 'B<answer>' for one that was stored before.
local stream, state, claim = KEYS[1], KEYS[2], KEYS[3]
if claim then
  local before = redis.call('SET', claim, '', 'NX', 'GET', 'PX', ARGV[9])
  -- An empty one is left by a server that failed within this script.
  if before and before ~= '' then return 'B' .. before end
end
local epoch, least = ARGV[1], tonumber(ARGV[2])
local function add(make)
  if make then return redis.pcall('XADD', stream, 'MAXLEN', '~', ARGV[3], epoch .. '-*', 'm', ARGV[8]) end
  return redis.pcall('XADD', stream, 'NOMKSTREAM', 'MAXLEN', '~', ARGV[3], epoch .. '-*', 'm', ARGV[8])
end
local id, changed = false, false
if tonumber(epoch) >= least and tonumber(epoch) > 0 then id = add(false) end
-- The topic has no stream, or it has another epoch.
if not id or (type(id) == 'table' and id.err and string.find(id.err, 'equal or smaller', 1, true)) then
  local _
  epoch, _, changed = current(stream, state, least)
  epoch = whole(epoch)
  id = add(true)
  if type(id) == 'string' then redis.call('HSET', state, 'e', epoch, 'n', 1) end
end
if type(id) == 'table' then
  if claim then redis.call('DEL', claim) end
  return id
end
if claim then redis.call('SET', claim, id .. ' ' .. ARGV[10], 'PX', ARGV[9]) end
keep(ARGV[4], stream, state)
if changed then redis.call(ARGV[5], ARGV[6], 'C\0\0\0\0\0\0\0\0') end
redis.call(ARGV[5], ARGV[6], ARGV[7] .. id .. ' ' .. ARGV[8])
return 'N' .. id
