-- The topic has no stream, or another epoch than the node knows, or nothing can be stored.
local function refuse(answer)
  if claim then redis.call('DEL', claim) end
  return answer
end
if type(id) == 'table' and not string.find(id.err, 'equal or smaller', 1, true) then return refuse(id) end
local epoch, last, changed = current(stream, state, tonumber(ARGV[2]), known)
id = redis.pcall('XADD', stream, 'MAXLEN', '~', most, whole(epoch) .. '-*', 'm', ARGV[8])
if type(id) == 'table' then return refuse(id) end
redis.call('HSET', state, 'e', whole(epoch), 'n', 1)
if changed then redis.call(ARGV[5], ARGV[6], 'C\0\0\0\0\0\0\0\0') end
return finish(id)
