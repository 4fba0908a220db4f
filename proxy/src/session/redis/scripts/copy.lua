-- COPY within one database: the server's own command could name another one, so nobody who shares a server may use it.
-- KEYS: source, destination. ARGV: whether the destination may be replaced (1).
if KEYS[1] == KEYS[2] then
    return redis.error_reply('ERR source and destination objects are the same')
end
local value = redis.call('DUMP', KEYS[1])
if not value then return 0 end
if ARGV[1] ~= '1' and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local ttl = redis.call('PTTL', KEYS[1])
redis.call('RESTORE', KEYS[2], math.max(ttl, 0), value, 'REPLACE')
return 1
