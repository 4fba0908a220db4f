-- Runs a command that may create keys, within the settings of its database.
-- KEYS: the keys that it may create.
-- ARGV: protocol version, max_keys (0: no limit), then for each key the seconds that it is to live (0: for ever) and whether the
-- command makes it anew where it was (1) or not (0), then the command.
local version, max = tonumber(ARGV[1]), tonumber(ARGV[2])
local fresh = {}
for i, key in ipairs(KEYS) do fresh[i] = redis.call('EXISTS', key) == 0 end
if max > 0 then
    local more = 0
    for i in ipairs(KEYS) do if fresh[i] then more = more + 1 end end
    if more > 0 and redis.call('DBSIZE') + more > max then
        return redis.error_reply('OOM this database holds ' .. max .. ' keys, and may not hold more (max_keys)')
    end
end
redis.setresp(version)
local reply = redis.pcall(unpack(ARGV, 3 + 2 * #KEYS))
redis.setresp(2)
for i, key in ipairs(KEYS) do
    local ttl = ARGV[1 + 2 * i]
    if ttl ~= '0' and (fresh[i] or ARGV[2 + 2 * i] == '1') and redis.call('TTL', key) == -1 then
        redis.call('EXPIRE', key, ttl)
    end
end
redis.setresp(version)
return reply
