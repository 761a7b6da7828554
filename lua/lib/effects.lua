-- Reads, checks and writes effects. This text stands in front of the scripts that use it.
--
-- Redis does not roll a script back, so a commit checks everything before its first write: types,
-- values, bounds and the caller's rights. After the first write of a call Redis refuses no other
-- write for memory, for missing replicas or on a replica. The first write of a call may fail; then
-- nothing was written, and the call returns the error.
--
-- An effect is a word and its arguments, each one of the script's arguments. A key is given as its
-- number among the script's keys, a time to live in milliseconds ('0' for ever). 'seen' is two
-- arguments: '1' and the bytes that the key must hold, or '0' and '' where it must be absent.
--
--   publish <log> <ids> <ids before> <message id> <window> <name> <value>
--                     appends an entry; <window> is '0', and <ids> any key, without deduplication
--   set <key> <value> <time to live>
--   insert <key> <value> <time to live>      the key must be absent
--   delete <key>
--   increment <key> <by> <low> <high>        the sum lies between both, or both are ''
--   replace <key> <seen> <value> <time to live>
--   unchanged <key> <seen>
--   once <key> <time to live>                leaves all effects out if the key exists
--   schedule <later> <bodies> <settings> <id> <'at' or 'after'> <milliseconds> <'replace' or 'keep'> <body>
--                     schedules a message for later, as later_put.lua does
--   cancel <later> <bodies> <id>             removes a message for later

local SIZES = {publish = 7, set = 3, insert = 3, delete = 1, increment = 4, replace = 5,
  unchanged = 3, once = 2, schedule = 8, cancel = 3}
local TTL_AT = {set = 3, insert = 3, replace = 5, once = 2}

-- Reads a number of effects from an argument on. Returns them and where the next argument stands, or
-- nil where the arguments are not effects.
local function read_effects(at, count)
  local effects = {}
  for n = 1, count or -1 do
    local kind = ARGV[at]
    local size = SIZES[kind]
    if not size or not ARGV[at + size] then
      return nil
    end
    local effect = {kind = kind, at = at, key = KEYS[tonumber(ARGV[at + 1])]}
    if kind == 'publish' then
      effect.ids, effect.before = KEYS[tonumber(ARGV[at + 2])], KEYS[tonumber(ARGV[at + 3])]
      effect.window = tonumber(ARGV[at + 5])
      if not (effect.ids and effect.before and effect.window) then
        return nil
      end
    elseif kind == 'schedule' or kind == 'cancel' then
      effect.bodies = KEYS[tonumber(ARGV[at + 2])]
      effect.settings = kind == 'schedule' and KEYS[tonumber(ARGV[at + 3])]
      effect.due = kind == 'schedule' and tonumber(ARGV[at + 6])
      if not effect.bodies or kind == 'schedule' and not (effect.settings and effect.due) then
        return nil
      end
    elseif TTL_AT[kind] then
      -- A greater one would overflow when Redis adds the time to it.
      effect.ttl = tonumber(ARGV[at + TTL_AT[kind]])
      if not effect.ttl or effect.ttl < 0 or effect.ttl > 4611686018427387904 then
        return nil
      end
    end
    if not effect.key then
      return nil
    end
    effects[n] = effect
    at = at + size + 1
  end
  return count and effects, at
end

-- Returns an error if the caller may not run a command. Without this check Redis would refuse the
-- command in the middle of the writes.
local permitted = {}
-- Some servers lack it, and most of these have no rights either.
local check_right = redis.acl_check_cmd
local function denied(command, key, ...)
  local name = command .. ' ' .. key
  if permitted[name] == nil then
    permitted[name] = not check_right or check_right(command, key, ...)
  end
  if not permitted[name] then
    return redis.error_reply("NOPERM this user has no permissions to run the '" ..
      string.lower(command) .. "' command on " .. key)
  end
end

-- The keys that the caller may write by effects of a kind. Most effects of a call share their keys.
local writable = {}

-- Returns an error if the caller may not write some of the effects.
local function denied_effects(effects)
  for _, effect in ipairs(effects) do
    local kind, key = effect.kind, effect.key
    local of_kind = effect.window and effect.window > 0 and 'identified' or kind
    local known = writable[of_kind] or {}
    local failed
    if known[key] then
      failed = nil
    elseif kind == 'publish' then
      failed = denied('XADD', key, '*', 'a', 'a') or denied('XDEL', key, '1-1') or denied('TYPE', key)
      if effect.window > 0 then
        local ids, before = effect.ids, effect.before
        failed = failed or denied('HMGET', ids, 'a', 'a') or denied('HMGET', before, 'a', 'a')
          or denied('HSET', ids, 'a', 'a') or denied('PEXPIREAT', ids, '1')
          or denied('UNLINK', before) or denied('RENAME', ids, before)
          or denied('TYPE', ids) or denied('TYPE', before)
      end
    elseif kind == 'schedule' then
      failed = denied('ZADD', key, '1', 'a') or denied('HSET', effect.bodies, 'a', 'a')
        or denied('ZSCORE', key, 'a') or denied('ZCARD', key)
        or denied('HMGET', effect.settings, 'a') or denied('TYPE', key)
        or denied('TYPE', effect.bodies) or denied('TYPE', effect.settings)
    elseif kind == 'cancel' then
      failed = denied('ZREM', key, 'a') or denied('HDEL', effect.bodies, 'a')
        or denied('TYPE', key) or denied('TYPE', effect.bodies)
    elseif kind == 'delete' then
      failed = denied('DEL', key)
    else
      failed = kind ~= 'set' and denied('GET', key)
        or kind == 'increment' and denied('INCRBY', key, '1')
        or kind ~= 'increment' and kind ~= 'unchanged' and denied('SET', key, 'a', 'PX', '1')
    end
    if failed then
      return failed
    end
    known[key] = true
    writable[of_kind] = known
  end
end

-- The keys whose type was right. No write of these scripts makes another type of them.
local right_type = {}
local function has_type(key, kind)
  if right_type[key] ~= kind then
    local found = redis.call('TYPE', key)['ok']
    right_type[key] = (found == 'none' or found == kind) and kind or nil
  end
  return right_type[key] == kind
end

-- Splits an integer in decimal text into high * 10^9 + low, with low from 0 to 10^9 - 1: a number of
-- Lua is exact only up to 2^53. Returns nil for any other text.
local function split(text)
  local sign, digits = string.match(text, '^(%-?)(%d+)$')
  if not digits or #digits > 19 or string.find(digits, '^0.') or sign .. digits == '-0' then
    return nil
  end
  local high = tonumber(string.sub(digits, 1, -10)) or 0
  local low = tonumber(string.sub(digits, -9))
  if sign == '-' then
    high, low = -high, -low
    if low < 0 then
      high, low = high - 1, low + 1000000000
    end
  end
  return high, low
end

local function is_below(high, low, other_high, other_low)
  return high < other_high or high == other_high and low < other_low
end

local function is_within(high, low, from, to)
  local from_high, from_low = split(from)
  local to_high, to_low = split(to)
  return not is_below(high, low, from_high, from_low) and not is_below(to_high, to_low, high, low)
end

local LEAST, GREATEST = '-9223372036854775808', '9223372036854775807'

-- Returns why an integer cannot be added to, or nil.
local function sum_problem(value, by, low_bound, high_bound)
  local high, low = split(value)
  if not high or not is_within(high, low, LEAST, GREATEST) then
    return 'not-an-integer'
  end
  local by_high, by_low = split(by)
  high, low = high + by_high, low + by_low
  if low >= 1000000000 then
    high, low = high + 1, low - 1000000000
  end
  if not is_within(high, low, LEAST, GREATEST)
    or low_bound ~= '' and not is_within(high, low, low_bound, high_bound) then
    return 'out-of-range'
  end
end

-- Returns why an effect cannot be written, or nil.
local function problem_of(effect)
  local kind, at = effect.kind, effect.at
  if kind == 'publish' then
    local right = has_type(effect.key, 'stream')
      and (effect.window == 0 or has_type(effect.ids, 'hash') and has_type(effect.before, 'hash'))
    return not right and 'wrong-type' or nil
  elseif kind == 'schedule' or kind == 'cancel' then
    if not has_type(effect.key, 'zset') or not has_type(effect.bodies, 'hash') then
      return 'wrong-type'
    elseif kind == 'cancel' then
      return nil
    elseif not has_type(effect.settings, 'hash') then
      return 'wrong-type'
    end
    local limit = redis.call('HMGET', effect.settings, 'backlogLimit')[1]
    local full = redis.call('ZCARD', effect.key) >= (tonumber(limit or '') or math.huge)
    return full and not redis.call('ZSCORE', effect.key, ARGV[at + 4]) and 'later-full' or nil
  elseif kind == 'set' or kind == 'delete' then
    return nil
  end
  local value = redis.pcall('GET', effect.key)
  if type(value) == 'table' then
    return 'wrong-type'
  elseif kind == 'insert' then
    return value and 'differs' or nil
  elseif kind == 'increment' then
    return sum_problem(value or '0', ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
  elseif kind == 'replace' or kind == 'unchanged' then
    local seen = ARGV[at + 2] == '1' and ARGV[at + 3]
    return value ~= seen and 'differs' or nil
  end
end

-- Returns why a commit cannot be written, as a line of the reply, or nil.
local function refusal(effects)
  for n, effect in ipairs(effects) do
    if effect.kind == 'once' then
      local value = redis.pcall('GET', effect.key)
      if value then
        return type(value) == 'table' and 'wrong-type ' .. n - 1 or 'skipped'
      end
    end
  end
  for n, effect in ipairs(effects) do
    local problem = problem_of(effect)
    if problem then
      return problem .. ' ' .. n - 1
    end
  end
end

-- Whether the call has written anything.
local wrote = false

-- Runs a write. Returns the reply, or nil and the error of the call's first write.
local function write(...)
  if wrote then
    return redis.call(...)
  end
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    return nil, reply
  end
  wrote = true
  return reply
end

-- Appends the entries of a commit. Returns their ids in the form of the reply, '=' before that of a
-- duplicate. Where that fails nothing is left: returns nil and a line of the reply, or nil, nil and
-- the error of the call.
local function append_entries(effects, now)
  local ids, added, remembered = {}, {}, {}
  for n, effect in ipairs(effects) do
    if effect.kind == 'publish' then
      local id, at, window = nil, effect.at, effect.window
      local current, before, known
      if window > 0 then
        current = redis.call('HMGET', effect.ids, 'since', 'span', ARGV[at + 4])
        before = redis.call('HMGET', effect.before, 'span', ARGV[at + 4])
        known = remembered[effect.key .. ARGV[at + 4]] or current[3] or before[2]
      end
      if known and now - string.match(known, '^%d+') < window then
        ids[#ids + 1] = '=' .. known
      else
        -- By pcall: a stream that has given its last id refuses the entry.
        local entry = redis.pcall('XADD', effect.key, '*', ARGV[at + 6], ARGV[at + 7])
        if type(entry) == 'table' then
          for _, one in ipairs(added) do
            redis.call('XDEL', one.key, one.id)
          end
          if string.find(entry.err, 'exhausted', 1, true) or wrote then
            return nil, 'stream-full ' .. n - 1
          end
          return nil, nil, entry
        end
        ids[#ids + 1] = entry
        added[#added + 1] = {key = effect.key, id = entry, effect = effect, current = current,
          before = before}
        remembered[effect.key .. ARGV[at + 4]] = entry
      end
    end
  end
  wrote = wrote or #added > 0
  for _, one in ipairs(added) do
    local effect = one.effect
    if effect.window > 0 then
      -- An earlier entry of the commit may have begun a generation.
      local current = redis.call('HMGET', effect.ids, 'since', 'span')
      local before = redis.call('HMGET', effect.before, 'span')
      remember_ids(effect.ids, effect.before, now, effect.window, current[1], current[2], before[1],
        {ARGV[effect.at + 4], one.id})
    end
  end
  return ids
end

local function store(key, value, ttl)
  if ttl > 0 then
    return write('SET', key, value, 'PX', string.format('%.0f', ttl))
  end
  return write('SET', key, value)
end

-- Schedules the messages for later of a commit. Returns the error of the call, or nil.
local function write_schedules(effects, now)
  for _, effect in ipairs(effects) do
    local at, key = effect.at, effect.key
    if effect.kind == 'schedule'
      and not (ARGV[at + 7] == 'keep' and redis.call('ZSCORE', key, ARGV[at + 4])) then
      local due = effect.due + (ARGV[at + 5] == 'after' and now or 0)
      local _, refused = write('ZADD', key, string.format('%.0f', due), ARGV[at + 4])
      if refused then
        return refused
      end
      redis.call('HSET', effect.bodies, ARGV[at + 4], ARGV[at + 8])
    end
  end
end

-- Writes the effects of a commit after all checks. Returns its line of the reply, or nil and the
-- error of the call, which has then written nothing.
local function write_effects(effects, now)
  local ids, line, failed = append_entries(effects, now)
  if not ids then
    return line, failed
  end
  failed = write_schedules(effects, now)
  if failed then
    return nil, failed
  end
  for _, effect in ipairs(effects) do
    local kind, at, key = effect.kind, effect.at, effect.key
    local _, refused
    if kind == 'set' or kind == 'insert' then
      _, refused = store(key, ARGV[at + 2], effect.ttl)
    elseif kind == 'replace' then
      _, refused = store(key, ARGV[at + 4], effect.ttl)
    elseif kind == 'once' then
      _, refused = store(key, 'true', effect.ttl)
    end
    if refused then
      return nil, refused
    end
  end
  for _, effect in ipairs(effects) do
    if effect.kind == 'increment' then
      local _, refused = write('INCRBY', effect.key, ARGV[effect.at + 2])
      if refused then
        return nil, refused
      end
    end
  end
  for _, effect in ipairs(effects) do
    if effect.kind == 'delete' then
      local _, refused = write('DEL', effect.key)
      if refused then
        return nil, refused
      end
    elseif effect.kind == 'cancel' then
      local _, refused = write('ZREM', effect.key, ARGV[effect.at + 3])
      if refused then
        return nil, refused
      end
      redis.call('HDEL', effect.bodies, ARGV[effect.at + 3])
    end
  end
  return 'done' .. (#ids > 0 and ' ' .. table.concat(ids, ' ') or '')
end

-- Checks and writes a commit; without `now` it only checks. Returns its line of the reply, or nil and
-- the error of the call.
local function commit_effects(effects, now)
  local refused = refusal(effects)
  if refused or not now then
    return refused or 'done'
  end
  return write_effects(effects, now)
end

local function now_in_millis()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Looks a call up in its session. Returns the answer that an earlier call of the same number got, or
-- nil; or nil and an error for a number before the last one.
local function answer_in(session, number)
  local stored = redis.call('GET', session)
  if not stored then
    return nil
  end
  local last, answer = string.match(stored, '^(%d+) (.*)$')
  if last == number then
    return answer
  end
  if not last or tonumber(last) > tonumber(number) then
    return nil, redis.error_reply('STALE call ' .. number .. ' of the session comes after call ' ..
      (last or 'none'))
  end
end
