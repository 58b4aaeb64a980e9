-- KEYS: nodes of the room. ARGV: most members that are named, runs that live, and the name of a node's members before and behind its run.
-- Answers how many sessions are in the room, the runs that were not counted with a blank behind each, then some members. A node that is
-- not known to be alive counts while it has told something within the last 15 s: it may be new.
local time, limit = redis.call('TIME'), tonumber(ARGV[1])
local answer, all = {0, ''}, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local run = all[i]
  local count, told = string.match(all[i + 1], '^(%d+) (%d+)$')
  if string.find(ARGV[2], run, 1, true) or time[1] - told <= 15 then
    answer[1] = answer[1] + count
    if limit > 0 then
      local named = redis.call('HRANDFIELD', ARGV[3] .. run .. ARGV[4], limit, 'WITHVALUES')
      for j = 2, #named, 2 do answer[#answer + 1] = named[j] end
      limit = limit - #named / 2
    end
  else
    answer[2] = answer[2] .. run .. ' '
  end
end
return answer
