-- SORT with BY or GET patterns, which the server grants only to users that may read every key.
-- KEYS: what is sorted, and where the result is stored (if it is).
-- ARGV: prefix, BY pattern or '' or '-' (not sorted at all), DESC, ALPHA, offset, count (-1: all), GET patterns …
local prefix, by = ARGV[1], ARGV[2]
local desc, alpha = ARGV[3] == '1', ARGV[4] == '1'
local offset, count = tonumber(ARGV[5]), tonumber(ARGV[6])
if not offset or not count then
    return redis.error_reply('ERR value is not an integer or out of range')
end

local kind = redis.call('TYPE', KEYS[1])['ok']
local elements
if kind == 'list' then
    elements = redis.call('LRANGE', KEYS[1], 0, -1)
elseif kind == 'set' then
    elements = redis.call('SMEMBERS', KEYS[1])
elseif kind == 'zset' then
    elements = redis.call(by == '-' and desc and 'ZREVRANGE' or 'ZRANGE', KEYS[1], 0, -1)
elseif kind == 'none' then
    elements = {}
else
    return redis.error_reply('WRONGTYPE Operation against a key holding the wrong kind of value')
end

-- The value that a pattern names for an element, or false.
local function look_up(pattern, element)
    if pattern == '#' then return element end
    local star = string.find(pattern, '*', 1, true)
    if not star then return false end
    local arrow = string.find(pattern, '->', star + 1, true)
    if arrow and arrow + 2 <= #pattern then
        local name = string.sub(pattern, 1, star - 1) .. element .. string.sub(pattern, star + 1, arrow - 1)
        local reply = redis.pcall('HGET', prefix .. name, string.sub(pattern, arrow + 2))
        return type(reply) == 'string' and reply
    end
    local name = string.sub(pattern, 1, star - 1) .. element .. string.sub(pattern, star + 1)
    local reply = redis.pcall('GET', prefix .. name)
    return type(reply) == 'string' and reply
end

local sorted = {}
for i, element in ipairs(elements) do
    local weight = element
    if by ~= '' and by ~= '-' then weight = look_up(by, element) end
    if not alpha and by ~= '-' then
        weight = tonumber(weight or '0')
        if not weight then
            return redis.error_reply("ERR One or more scores can't be converted into double")
        end
    end
    sorted[i] = { element, weight }
end
local function before(a, b)
    local x, y = a[2], b[2]
    if x == y then
        x, y = a[1], b[1]
    elseif not x or not y then
        if desc then return not y end
        return not x
    end
    if desc then return x > y end
    return x < y
end
if by ~= '-' then table.sort(sorted, before) end

local first = math.max(offset, 0) + 1
local last = #sorted
if count >= 0 then last = math.min(last, first + count - 1) end
local result = {}
for i = first, last do
    if #ARGV == 6 then
        result[#result + 1] = sorted[i][1]
    else
        for pattern = 7, #ARGV do
            result[#result + 1] = look_up(ARGV[pattern], sorted[i][1])
        end
    end
end
if #KEYS == 1 then return result end

redis.call('DEL', KEYS[2])
for i = 1, #result do redis.call('RPUSH', KEYS[2], result[i] or '') end
return #result
