-- KEYS: stream, state. ARGV: 'A' or 'B'; after or before this offset; most messages.
-- Answers epoch, last, floor, lost, the oldest offset that is kept (last + 1 if none is), then offset and message of each, oldest first.
local stream, state = KEYS[1], KEYS[2]
local epoch, sequence = newest(stream)
local f, l, e = unpack(redis.call('HMGET', state, 'f', 'l', 'e'))
local floor, lost = mark(f), mark(l)
if not epoch then return {e or '0', '0', '0', '0', '1'} end
local last, name, bound = sequence + 1, whole(epoch), tonumber(ARGV[2])
local first = last + 1
local oldest = redis.call('XRANGE', stream, name .. '-' .. whole(floor), '+', 'COUNT', 1)[1]
if oldest then
  local _, at = split(oldest[1])
  first = at + 1
end
if first - 1 > floor then floor, lost = first - 1, first - 1 end
local answer, found = {name, whole(last), whole(floor), whole(lost), whole(first)}, {}
if ARGV[1] == 'A' then
  found = redis.call('XRANGE', stream, name .. '-' .. whole(math.max(bound, floor)), '+', 'COUNT', ARGV[3])
  for _, entry in ipairs(found) do
    local _, at = split(entry[1])
    answer[#answer + 1], answer[#answer + 2] = whole(at + 1), entry[2][2]
  end
elseif bound >= 2 then
  found = redis.call('XREVRANGE', stream, name .. '-' .. whole(math.min(bound - 2, sequence)), name .. '-' .. whole(floor), 'COUNT', ARGV[3])
  for i = #found, 1, -1 do
    local _, at = split(found[i][1])
    answer[#answer + 1], answer[#answer + 2] = whole(at + 1), found[i][2][2]
  end
end
return answer
