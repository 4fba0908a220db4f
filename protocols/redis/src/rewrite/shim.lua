-- Stands in front of the first line of a library's code, where `redis` and `server` are this until the first call of one of its
-- functions: it registers them under names in the database's namespace. When a library is loaded there is nothing else than
-- `redis` (`server` too, in Valkey): no other library, no metatables, no environments, so there is no way around it.
local redis,server={redis,function() return redis end,function() return server end}
do
local api,redis_now,server_now,space,dump=redis[1],redis[2],redis[3],'NAMESPACE',('').dump
local loading=true
local function run(callback)
if callback==nil or callback==true or callback==false then return callback end
if dump then dump(callback) end
return function(...)
if loading then
loading=false
redis=redis_now()
local there,it=pcall(server_now)
server=there and it or nil
end
return callback(...)
end
end
redis={log=api.log,LOG_DEBUG=api.LOG_DEBUG,LOG_VERBOSE=api.LOG_VERBOSE,LOG_NOTICE=api.LOG_NOTICE,LOG_WARNING=api.LOG_WARNING,REDIS_VERSION=api.REDIS_VERSION,REDIS_VERSION_NUM=api.REDIS_VERSION_NUM}
server=redis
function redis.register_function(what,callback,more)
if more~=nil then return api.register_function(what,callback,more) end
if what==nil then return api.register_function() end
if callback~=nil then
if what~='' and what~=true and what~=false then what=space..what end
return api.register_function(what,run(callback))
end
local name,callback=what.function_name,what.callback
if name==nil or name=='' or name==true or name==false then return api.register_function(what) end
what.function_name,what.callback=space..name,run(callback)
api.register_function(what)
what.function_name,what.callback=name,callback
end
end
--[[tenantsdb]]
