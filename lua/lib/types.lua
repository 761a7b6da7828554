-- Tells keys that are not what they should be. Stands before the text of the scripts that ask for it; by
-- itself it does nothing.

-- Fails before anything is written where a key is not what it should be: nothing is rolled back.
local function check_types(kinds)
  for at, kind in ipairs(kinds) do
    local found = redis.call('TYPE', KEYS[at])['ok']
    if found ~= 'none' and found ~= kind then
      return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. found .. ', not a ' .. kind)
    end
  end
end
