-- Reads the members of an owned group. This text stands in front of the scripts that use it.

-- Divides the fields of the hash of owners: returns the owners by partition, the members that are about to
-- leave, the leases that members asked for, and the fields of members that do not live.
local function read_owners(flat, lives)
  local owners, leaving, leases, stale = {}, {}, {}, {}
  for at = 1, #flat, 2 do
    local field, value = flat[at], flat[at + 1]
    local about, name = string.match(field, '^(%a+):(.*)$')
    if field == 'changes' then
      -- Counts what wakes the members.
    elseif not lives[name or value] then
      stale[#stale + 1] = field
    elseif not about then
      owners[field] = value
    elseif about == 'leaving' then
      leaving[name] = true
    elseif about == 'lease' then
      leases[name] = tonumber(value)
    end
  end
  return owners, leaving, leases, stale
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
