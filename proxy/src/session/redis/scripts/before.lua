-- Before a command that no script can run (a script of the client's, a command that waits): which of the keys that it may create
-- are there. KEYS: those keys. ARGV: max_keys (0: no limit).
local max = tonumber(ARGV[1])
local there, more = {}, 0
for i, key in ipairs(KEYS) do
    there[i] = redis.call('EXISTS', key)
    more = more + 1 - there[i]
end
if max > 0 and more > 0 and redis.call('DBSIZE') + more > max then
    return redis.error_reply('OOM this database holds ' .. max .. ' keys, and may not hold more (max_keys)')
end
return there
