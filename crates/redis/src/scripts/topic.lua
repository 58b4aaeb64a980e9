-- Put before every script of a topic. Numbers stay below 2^53; they are written in full, as Lua would round them to 14 digits.
local LAST = '18446744073709551615'
local function whole(number) return string.format('%.0f', number) end
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local function now_ms() return math.floor(now_us() / 1000) end
local function split(id)
  local epoch, sequence = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(epoch), tonumber(sequence)
end
-- A mark, which may be missing.
local function mark(value) return tonumber(value or 0) or 0 end

-- Devices: 'fence cursor away skipped run shard session', '-' for none. No cursor: no state was told yet.
local function device(value)
  local d = {}
  d.fence, d.cursor, d.away, d.skipped, d.run, d.shard, d.session =
    string.match(value, '^(%d+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  -- A damaged one is as if it had been claimed long ago, and was never told of.
  if not d.fence then return {fence = '0', cursor = '-', away = '-', skipped = '-', run = '-', shard = '-', session = '-'} end
  return d
end
local function put_device(state, name, d)
  local value = table.concat({d.fence, d.cursor, d.away, d.skipped, d.run, d.shard, d.session}, ' ')
  redis.call('HSET', state, 'd:' .. name, value)
end
-- All devices, as a list of name and device.
local function devices(state)
  local found, all = {}, redis.call('HGETALL', state)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'd:' then found[#found + 1] = {string.sub(all[i], 3), device(all[i + 1])} end
  end
  return found
end

-- Epoch and sequence of the newest message that the stream had; nil if there is no stream.
local function newest(stream)
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if last then return split(last[1]) end
  if redis.call('EXISTS', stream) == 0 then return nil end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return split(info[i + 1]) end
  end
end

-- The epoch, the offset of the newest message, and whether the epoch has just begun. An epoch below the partition's least one, or
-- below one that the node knows, ends: what is left of its messages keeps its offsets in the new one, and cursors beyond those fall back.
local function current(stream, state, least, known)
  local epoch, sequence = newest(stream)
  local told, made = unpack(redis.call('HMGET', state, 'e', 'n'))
  told = mark(told)
  if epoch and epoch >= least and epoch >= known then
    if told ~= epoch or not made then redis.call('HSET', state, 'e', whole(epoch), 'n', 1) end
    return epoch, sequence + 1, false
  end
  if not epoch and told >= least and told >= known and told > 0 and not made then return told, 0, false end
  local anew = math.max(now_ms(), least, told + 1, (epoch or 0) + 1, known + 1)
  local last = 0
  if epoch then
    last = sequence + 1
    local entries = redis.call('XRANGE', stream, whole(epoch) .. '-0', '+')
    for _, entry in ipairs(entries) do
      local _, at = split(entry[1])
      redis.call('XADD', stream, whole(anew) .. '-' .. whole(at), unpack(entry[2]))
    end
    if #entries == 0 then redis.call('XSETID', stream, whole(anew) .. '-' .. whole(sequence)) end
    redis.call('XTRIM', stream, 'MINID', whole(anew) .. '-0')
    -- Of the epochs before, the newest eight: up to where their messages are here.
    local before = {}
    for name, upto in string.gmatch(redis.call('HGET', state, 'b') or '', '(%d+)-(%d+)') do
      before[#before + 1] = name .. '-' .. whole(math.min(tonumber(upto), last))
    end
    before[#before + 1] = whole(epoch) .. '-' .. whole(last)
    redis.call('HSET', state, 'e', whole(anew), 'n', 1, 'b', table.concat(before, ' ', math.max(1, #before - 7)))
  else
    -- In this order: after a first write that needs no memory, such as HDEL, a full Redis lets a script write all the rest.
    redis.call('HSET', state, 'e', whole(anew))
    redis.call('HDEL', state, 'n', 'b')
  end
  local f, l, g = unpack(redis.call('HMGET', state, 'f', 'l', 'g'))
  for field, value in pairs({f = f, l = l, g = g}) do
    if value and mark(value) > last then redis.call('HSET', state, field, whole(last)) end
  end
  for _, found in ipairs(devices(state)) do
    local name, d = found[1], found[2]
    if d.cursor ~= '-' and mark(d.cursor) > last then
      d.cursor, d.skipped = whole(last), '-'
      put_device(state, name, d)
    end
  end
  return anew, last, told > 0 or epoch ~= nil
end

-- Whether a session may have the device: its node is alive, or has claimed the device a minute ago at most and may be new. `alive` are
-- the runs of nodes that the asking node knows to be alive.
local function is_held(d, alive)
  if d.run == '-' then return false end
  return string.find(alive, d.run, 1, true) ~= nil or now_us() - tonumber(d.fence) < 60000000
end

-- Raises the floor to what every device has acknowledged; a device of which no state was told yet holds it where it is, while it
-- has a session. For a device that is not known, or not any more, the messages up to there are lost.
local function raise_floor(stream, state, last, alive)
  local floor, before = nil, mark(redis.call('HGET', state, 'f'))
  for _, found in ipairs(devices(state)) do
    local name, d = found[1], found[2]
    if d.cursor ~= '-' then
      local cursor = mark(d.cursor)
      if not floor or cursor < floor then floor = cursor end
    elseif is_held(d, alive) then
      floor = 0
    else
      redis.call('HDEL', state, 'd:' .. name)
    end
  end
  floor = math.max(before, math.min(floor or 0, last))
  if floor > before then redis.call('HSET', state, 'f', whole(floor), 'l', whole(floor)) end
  return floor
end
local function trim(stream, epoch, floor)
  redis.call('XTRIM', stream, 'MINID', epoch .. '-' .. whole(floor))
end
local function keep(ttl_ms, ...)
  for _, key in ipairs({...}) do redis.call('PEXPIRE', key, ttl_ms) end
end
