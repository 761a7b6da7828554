-- Says what the caller of a script may run. This text stands in front of the scripts that use it.

-- Some servers cannot tell, and most of these have no rights either.
local check_right = redis.acl_check_cmd

-- Returns whether the caller may run a command.
local function may(command, key, ...)
  return not check_right or check_right(command, key, ...)
end
