-- Runs a command that may create keys, within the settings of its database.
-- KEYS: the keys that it may create.
-- ARGV: protocol version, max_keys (0: no limit), then for each key the seconds that it is to live (0: for ever) and whether the
-- command makes it anew where it was (1) or not (0), then the command.
local version, max = tonumber(ARGV[1]), tonumber(ARGV[2])
local fresh, more = {}, 0
for i, key in ipairs(KEYS) do
    fresh[i] = redis.call('EXISTS', key) == 0
    if fresh[i] then more = more + 1 end
end
if max > 0 and more > 0 and redis.call('DBSIZE') + more > max then
    return redis.error_reply('OOM this database holds ' .. max .. ' keys, and may not hold more (max_keys)')
end
local words = { unpack(ARGV, 3 + 2 * #KEYS) }
redis.setresp(version)
local reply = redis.pcall(unpack(words))
redis.setresp(2)
for i, key in ipairs(KEYS) do
    local ttl = ARGV[1 + 2 * i]
    if ttl ~= '0' and (fresh[i] or ARGV[2 + 2 * i] == '1') and redis.call('TTL', key) == -1 then
        redis.call('EXPIRE', key, ttl)
    end
end
-- A number of Lua's is exact up to 2^53: beyond it the text is, which the proxy makes an integer again.
if type(reply) == 'number' and math.abs(reply) >= 9007199254740992 then
    local name = string.upper(words[1])
    if name == 'HINCRBY' then
        reply = { ok = redis.call('HGET', words[2], words[3]) }
    else
        reply = { ok = redis.call('GET', words[2]) }
    end
end
redis.setresp(version)
return reply
