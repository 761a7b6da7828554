-- Reads the members of an owned group. This text stands in front of the scripts that use it.

-- Divides the fields of the hash of owners: returns the owners by partition, the members that are about to
-- leave, and the fields of members that do not live.
local function read_owners(flat, lives)
  local owners, leaving, stale = {}, {}, {}
  for at = 1, #flat, 2 do
    local field, value = flat[at], flat[at + 1]
    local leaves = string.match(field, '^leaving:(.*)$')
    if leaves and lives[leaves] then
      leaving[leaves] = true
    elseif not leaves and lives[value] then
      owners[field] = value
    elseif field ~= 'changes' then
      stale[#stale + 1] = field
    end
  end
  return owners, leaving, stale
end

-- Returns the members that are not about to leave, and the partitions with their owners and tokens.
local function roster_of(members, owners, leaving)
  local stay, owned = {}, {}
  for _, name in ipairs(members) do
    if not leaving[name] then
      stay[#stay + 1] = name
    end
  end
  for partition, owner in pairs(owners) do
    owned[#owned + 1], owned[#owned + 2] = partition, owner
    owned[#owned + 1] = redis.call('HGET', KEYS[3], partition) or '0'
  end
  return {stay, owned}
end
