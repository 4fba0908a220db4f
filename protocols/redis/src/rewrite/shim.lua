-- Stands in front of the first line of a library's code, where `redis` and `server` are this: it registers the functions under
-- names in the database's namespace. When a library is loaded there is nothing else than `redis` (`server` too, in Valkey): no
-- other library, no metatables, no environments, so there is no way around it.
-- What is registered does not hold what the code has made: each call runs the code anew, from a text, and then the function of
-- that name. So nothing that a library keeps in variables outlives a call, and fills the memory of a server that others use.
local redis,server={redis,function() return redis end,function() return server end}
do
local api,redis_now,server_now,space,code,dump=redis[1],redis[2],redis[3],'NAMESPACE',CODE,('').dump
local compiled
local function new(register)
return {register_function=register,log=api.log,LOG_DEBUG=api.LOG_DEBUG,LOG_VERBOSE=api.LOG_VERBOSE,LOG_NOTICE=api.LOG_NOTICE,LOG_WARNING=api.LOG_WARNING,REDIS_VERSION=api.REDIS_VERSION,REDIS_VERSION_NUM=api.REDIS_VERSION_NUM}
end
local function run(name,callback)
if callback==nil or callback==true or callback==false then return callback end
if dump then dump(callback) end
return function(...)
if not compiled then compiled=loadstring(code,'@user_function') end
local callbacks,over,set={}
local own=new(function(what,callback)
if over then error('redis.register_function can only be called on FUNCTION LOAD command') end
if callback==nil then what,callback=what.function_name,what.callback end
callbacks[what..'']=callback
end)
compiled(function(it) set=it return own,own end)
over=true
local there,it=pcall(server_now)
set(redis_now(),there and it or nil)
return callbacks[name..''](...)
end
end
redis=new(function(what,callback,more)
if more~=nil then return api.register_function(what,callback,more) end
if what==nil then return api.register_function() end
if callback~=nil then
if what=='' or what==true or what==false then return api.register_function(what,callback) end
return api.register_function(space..what,run(what,callback))
end
local name,callback=what.function_name,what.callback
if name==nil or name=='' or name==true or name==false then return api.register_function(what) end
what.function_name,what.callback=space..name,run(name,callback)
api.register_function(what)
what.function_name,what.callback=name,callback
end)
server=redis
end
--[[tenantsdb]]
