-- After such a command: the keys that it has created are to live as long as the settings say.
-- KEYS: keys that were not there before. ARGV: the seconds for each (0: for ever).
for i, key in ipairs(KEYS) do
    if ARGV[i] ~= '0' and redis.call('TTL', key) == -1 then redis.call('EXPIRE', key, ARGV[i]) end
end
return 0
