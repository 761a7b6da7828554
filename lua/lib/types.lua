-- Checks the types of keys. This text stands in front of the scripts that use it.

-- Returns an error when a key has another type than the script needs. Scripts call it before their
-- first write, because Redis does not roll a script back.
local function check_types(kinds)
  for at, kind in ipairs(kinds) do
    local found = redis.call('TYPE', KEYS[at])['ok']
    if found ~= 'none' and found ~= kind then
      return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. found .. ', not a ' .. kind)
    end
  end
end
