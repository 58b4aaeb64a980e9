-- KEYS: stream, state. ARGV: the partition's least epoch; ttl in ms, and of a topic of
-- which nothing is known yet; PUBLISH or SPUBLISH; channel; head of the news that it has changed; epoch that the node knows or 0.
-- Answers epoch, last, floor, lost, when the first message leaves (or ''), known, forgotten_at (or ''),
-- the epochs before ('<epoch>-<offset>', each up to where its messages are here), then name and value of each device.
local stream, state = KEYS[1], KEYS[2]
local epoch, last, changed = current(stream, state, tonumber(ARGV[1]), tonumber(ARGV[7]))
local f, l, k, g, b = unpack(redis.call('HMGET', state, 'f', 'l', 'k', 'g', 'b'))
local before, lost, due, now = mark(f), mark(l), '', now_ms()
local floor = before
while floor < last and due == '' do
  local page = redis.call('XRANGE', stream, whole(epoch) .. '-' .. whole(floor), whole(epoch) .. '-' .. LAST, 'COUNT', 16)
  -- All of them were pushed out by newer ones, or this one was.
  if #page == 0 then floor, lost = last, last end
  for _, entry in ipairs(page) do
    local _, at = split(entry[1])
    if at > floor then floor, lost = at, at end
    local bits, expires = struct.unpack('>BI8', entry[2][2], 2)
    if expires > now then due = whole(expires) break end
    floor = at + 1
    if bits % 2 == 0 then lost = floor end
  end
end
if floor > before then
  redis.call('HSET', state, 'f', whole(floor), 'l', whole(lost))
  trim(stream, whole(epoch), floor)
end
if changed then redis.call(ARGV[4], ARGV[5], ARGV[6]) end
local answer = {whole(epoch), whole(last), whole(floor), whole(lost), due, k or '0', g or '', b or ''}
local all = devices(state)
for _, found in ipairs(all) do
  local d = found[2]
  if d.cursor ~= '-' then
    answer[#answer + 1] = found[1]
    answer[#answer + 1] = table.concat({d.fence, d.cursor, d.away, d.skipped, d.run, d.shard, d.session}, ' ')
  end
end
-- A client that asks for topics that nobody has used leaves little.
keep((last > 0 or #all > 0) and ARGV[2] or ARGV[3], stream, state)
return answer
