-- KEYS: stream. ARGV: message.
-- Answers the id of the entry that has exactly this message, looking at the newest 1000; nil if there is none.
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1000)) do
  if entry[2][2] == ARGV[1] then return entry[1] end
end
return false
