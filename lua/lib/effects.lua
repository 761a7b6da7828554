-- Reads, checks and writes effects. This text stands in front of the scripts that use it.
--
-- Redis does not roll a script back, so a commit checks everything before its first write: types,
-- values, bounds and the caller's rights. After the first write of a call Redis refuses no other
-- write for memory, for missing replicas or on a replica. The first write of a call may fail; then
-- nothing was written, and the call returns the error.
--
-- An effect is a word of its fields, with one space between two of them, and its values as arguments
-- of their own. A key is given as its number among the script's keys, a time to live in milliseconds
-- ('0' for ever), a bound or a value that is missing as '-'. Most effects of a call have the same word,
-- which is read and checked once.
--
--   publish <log> <ids> <ids before> <window> <name>: <message id> <value>
--                     appends an entry; <window> is '0', and <ids> any key, without deduplication
--   set <key> <time to live>: <value>
--   insert <key> <time to live>: <value>     the key must be absent
--   delete <key>:
--   increment <key> <by> <low> <high>:       the sum lies between both, or both are '-'
--   replace <key> <time to live> <seen>: <value that was seen> <value>
--                     <seen> is 'seen', or '-' where the key must be absent
--   unchanged <key> <seen>: <value that was seen>
--   once <key> <time to live>:               leaves all effects out if the key exists
--   schedule <later> <bodies> <settings> <bell> <'at' or 'after'> <milliseconds> <'replace' or 'keep'>:
--                     <id> <body>            schedules a message for later, as later_put.lua does
--   cancel <later> <bodies>: <id>            removes a message for later

-- The number of fields and of values.
local FIELDS = {publish = 6, set = 3, insert = 3, delete = 2, increment = 5, replace = 4, unchanged = 3,
  once = 3, schedule = 8, cancel = 3}
local VALUES = {publish = 2, set = 1, insert = 1, delete = 0, increment = 0, replace = 2, unchanged = 1,
  once = 0, schedule = 2, cancel = 1}

-- Returns an error if the caller may not run a command. Without this check Redis would refuse the
-- command in the middle of the writes.
local permitted = {}
local function denied(command, key, ...)
  local name = command .. ' ' .. key
  if permitted[name] == nil then
    permitted[name] = may(command, key, ...)
  end
  if not permitted[name] then
    return redis.error_reply("NOPERM this user has no permissions to run the '" ..
      string.lower(command) .. "' command on " .. key)
  end
end

-- Returns an error if the caller may not write an effect.
local function denied_effect(effect)
  local kind, key, ids, before = effect.kind, effect.key, effect.ids, effect.before
  if kind == 'publish' then
    local failed = denied('XADD', key, '*', 'a', 'a') or denied('XDEL', key, '1-1')
      or denied('TYPE', key)
    if failed or not effect.has_window then
      return failed
    end
    return denied('HMGET', ids, 'a', 'a') or denied('HMGET', before, 'a', 'a')
      or denied('HSET', ids, 'a', 'a') or denied('PEXPIREAT', ids, '1')
      or denied('UNLINK', before) or denied('RENAME', ids, before)
      or denied('TYPE', ids) or denied('TYPE', before)
  elseif kind == 'schedule' then
    return denied('ZADD', key, '1', 'a') or denied('HSET', effect.bodies, 'a', 'a')
      or denied('ZSCORE', key, 'a') or denied('ZCARD', key)
      or denied('HMGET', effect.settings, 'a') or denied('TYPE', key)
      or denied('TYPE', effect.bodies) or denied('TYPE', effect.settings)
  elseif kind == 'cancel' then
    return denied('ZREM', key, 'a') or denied('HDEL', effect.bodies, 'a')
      or denied('TYPE', key) or denied('TYPE', effect.bodies)
  elseif kind == 'delete' then
    return denied('DEL', key)
  end
  return kind ~= 'set' and denied('GET', key)
    or kind == 'increment' and denied('INCRBY', key, '1')
    or kind ~= 'increment' and kind ~= 'unchanged' and denied('SET', key, 'a', 'PX', '1')
    or nil
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

-- Whether a number of milliseconds is a time that Redis takes, also when the script adds it to its own.
local function is_time(millis)
  return millis ~= nil and millis >= 0 and millis <= 9007199254740992
end

-- Whether the sum's addend and bounds are integers: another one would end the script in the middle.
local function is_sum(by, low, high)
  return split(by) and (low == '-' and high == '-' or split(low) and split(high))
end

-- Reads the word of an effect. Returns its fields by name, or nil and the error where the caller may
-- not write the effect. Returns nothing for any other word.
local function read_word(word)
  local fields = {}
  for field in string.gmatch(word, '%S+') do
    fields[#fields + 1] = field
  end
  local kind, key = fields[1], KEYS[tonumber(fields[2])]
  if not key or #fields ~= FIELDS[kind] then
    return nil
  end
  local effect = {kind = kind, key = key, values = VALUES[kind]}
  if kind == 'publish' then
    effect.ids, effect.before = KEYS[tonumber(fields[3])], KEYS[tonumber(fields[4])]
    effect.window, effect.name = tonumber(fields[5]), fields[6]
    if not (effect.ids and effect.before and is_time(effect.window)) then
      return nil
    end
    effect.has_window = effect.window > 0
  elseif kind == 'increment' then
    effect.by, effect.low, effect.high = fields[3], fields[4], fields[5]
    if not is_sum(effect.by, effect.low, effect.high) then
      return nil
    end
  elseif kind == 'unchanged' then
    effect.has_seen = fields[3] == 'seen'
  elseif kind == 'schedule' or kind == 'cancel' then
    effect.bodies = KEYS[tonumber(fields[3])]
    effect.settings, effect.bell = KEYS[tonumber(fields[4] or '')], KEYS[tonumber(fields[5] or '')]
    effect.is_delay, effect.due = fields[6] == 'after', tonumber(fields[7] or '')
    effect.keeps = fields[8] == 'keep'
    local is_whole = effect.settings and effect.bell and is_time(effect.due)
    if not effect.bodies or kind == 'schedule' and not is_whole then
      return nil
    end
  elseif kind ~= 'delete' then
    -- A greater time would overflow when Redis adds it to its own.
    effect.ttl, effect.has_seen = tonumber(fields[3]), fields[4] == 'seen'
    if not (effect.ttl and effect.ttl >= 0 and effect.ttl <= 4611686018427387904) then
      return nil
    end
  end
  local failed = denied_effect(effect)
  if failed then
    return nil, failed
  end
  return effect
end

-- What the words of the call stand for.
local known_words = {}
-- The effects of the call, one after the other: the fields of each, and where its word stands. A table
-- for each effect would cost more than the commands that write it.
local effects, places = {}, {}
-- The commits: their first and last effect, whether one is a `once`, and whether all are messages
-- without a window.
local first_of, last_of, has_once, is_plain = {}, {}, {}, {}

-- Reads the effects of the commit `n` from an argument on. Returns where the next argument stands; or
-- nil where the arguments are not effects, and the error where the caller may not write them.
local function read_effects(n, at, count)
  local last = last_of[n - 1] or 0
  first_of[n], has_once[n], is_plain[n] = last + 1, false, true
  for _ = 1, count or -1 do
    local word = ARGV[at]
    local effect = known_words[word]
    if not effect then
      local failed
      effect, failed = read_word(word or '')
      if not effect then
        return nil, failed
      end
      known_words[word] = effect
    end
    if not ARGV[at + effect.values] then
      return nil
    end
    if effect.kind ~= 'publish' or effect.has_window then
      is_plain[n] = false
      has_once[n] = has_once[n] or effect.kind == 'once'
    end
    last = last + 1
    effects[last], places[last] = effect, at
    at = at + effect.values + 1
  end
  last_of[n] = last
  return count and at
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
    or low_bound ~= '-' and not is_within(high, low, low_bound, high_bound) then
    return 'out-of-range'
  end
end

-- Returns why an effect cannot be written, or nil. `new_messages` counts the new messages for later
-- of the commit, by key.
local function problem_of(effect, at, new_messages)
  local kind, key = effect.kind, effect.key
  if kind == 'publish' then
    local right = has_type(key, 'stream') and (not effect.has_window
      or has_type(effect.ids, 'hash') and has_type(effect.before, 'hash'))
    return not right and 'wrong-type' or nil
  elseif kind == 'schedule' or kind == 'cancel' then
    if not has_type(key, 'zset') or not has_type(effect.bodies, 'hash') then
      return 'wrong-type'
    elseif kind == 'cancel' then
      return nil
    elseif not has_type(effect.settings, 'hash') then
      return 'wrong-type'
    end
    local settings = redis.call('HMGET', effect.settings, 'backlogLimit', 'partitions')
    local limit = (tonumber(settings[1] or '') or math.huge) / (tonumber(settings[2] or '') or 1)
    if redis.call('ZSCORE', key, ARGV[at + 1]) then
      return nil
    end
    -- Effects schedule an id once, so each of those before it is another message.
    new_messages[key] = (new_messages[key] or 0) + 1
    return redis.call('ZCARD', key) + new_messages[key] > math.ceil(limit) and 'later-full' or nil
  elseif kind == 'set' or kind == 'delete' then
    return nil
  end
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then
    return 'wrong-type'
  elseif kind == 'insert' then
    return value and 'differs' or nil
  elseif kind == 'increment' then
    return sum_problem(value or '0', effect.by, effect.low, effect.high)
  elseif kind == 'replace' or kind == 'unchanged' then
    local seen = effect.has_seen and ARGV[at + 1]
    return value ~= seen and 'differs' or nil
  end
end

-- Returns why a commit cannot be written, as a line of the reply, or nil.
local function refusal(n)
  local first, last = first_of[n], last_of[n]
  if has_once[n] then
    for at = first, last do
      if effects[at].kind == 'once' then
        local value = redis.pcall('GET', effects[at].key)
        if value then
          return type(value) == 'table' and 'wrong-type ' .. at - first or 'skipped'
        end
      end
    end
  end
  local new_messages = {}
  for at = first, last do
    local problem = problem_of(effects[at], places[at], new_messages)
    if problem then
      return problem .. ' ' .. at - first
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

-- Finds the entry that a message became within its window: in an earlier commit, or in the same one,
-- which has not stored it yet. Returns it as the reply has it, or nil.
local function duplicate_of(effect, id, now, remembered)
  local known = remembered[effect.key .. id] or redis.call('HMGET', effect.ids, id)[1]
    or redis.call('HMGET', effect.before, id)[1]
  if known and now - string.match(known, '^%d+') < effect.window then
    return '=' .. known
  end
end

-- Remembers the messages that have a window and were appended.
local function remember(n, appended, now)
  for at = first_of[n], last_of[n] do
    local effect = effects[at]
    if effect.has_window and appended[at] then
      -- An earlier entry of the commit may have begun a generation.
      local current = redis.call('HMGET', effect.ids, 'since', 'span')
      local before = redis.call('HMGET', effect.before, 'span')
      remember_ids(effect.ids, effect.before, now, effect.window, current[1], current[2], before[1],
        {ARGV[places[at] + 1], appended[at]})
    end
  end
end

-- The line of a commit, and the entry that each effect of the call has appended.
local words, appended = {'done'}, {}

-- Appends the entries of a commit. Returns its line of the reply, with their ids, '=' before that of a
-- duplicate. Where that fails nothing is left: returns nil and a line of the reply, or nil, nil and the
-- error of the call.
local function append_entries(n, now)
  local first, count, added = first_of[n], 1, false
  local remembered = not is_plain[n] and {}
  for at = first, last_of[n] do
    local effect, place = effects[at], places[at]
    if effect.kind == 'publish' then
      local id = effect.has_window and duplicate_of(effect, ARGV[place + 1], now, remembered)
      if not id then
        -- By pcall: a stream that has given its last id refuses the entry.
        id = redis.pcall('XADD', effect.key, '*', effect.name, ARGV[place + 2])
        if type(id) == 'table' then
          for earlier = first, at - 1 do
            if appended[earlier] then
              redis.call('XDEL', effects[earlier].key, appended[earlier])
            end
          end
          if string.find(id.err, 'exhausted', 1, true) or wrote then
            return nil, 'stream-full ' .. at - first
          end
          return nil, nil, id
        end
        appended[at], added = id, true
        if effect.has_window then
          remembered[effect.key .. ARGV[place + 1]] = id
        end
      end
      count = count + 1
      words[count] = id
    end
  end
  wrote = wrote or added
  if remembered and added then
    remember(n, appended, now)
  end
  return table.concat(words, ' ', 1, count)
end

local function store(effect, value)
  if effect.ttl > 0 then
    return write('SET', effect.key, value, 'PX', string.format('%.0f', effect.ttl))
  end
  return write('SET', effect.key, value)
end

-- Schedules a message for later. Returns the error of the call.
local function schedule_later(effect, place, now)
  local key, id = effect.key, ARGV[place + 1]
  if effect.keeps and redis.call('ZSCORE', key, id) then
    return nil
  end
  local due = effect.due + (effect.is_delay and now or 0)
  local _, refused = write('ZADD', key, string.format('%.0f', due), id)
  if not refused then
    redis.call('HSET', effect.bodies, id, ARGV[place + 2])
    ring_if_near(effect.bell, due, now)
  end
  return refused
end

-- Removes a message for later. Returns the error of the call.
local function cancel_later(effect, place)
  local _, refused = write('ZREM', effect.key, ARGV[place + 1])
  if not refused then
    redis.call('HDEL', effect.bodies, ARGV[place + 1])
  end
  return refused
end

-- Writes the effects of a commit that one command writes. Returns the error of the call.
local function write_all(n, command, now)
  for at = first_of[n], last_of[n] do
    local effect, place = effects[at], places[at]
    local kind, _, refused = effect.kind, nil, nil
    if command == 'ZADD' and kind == 'schedule' then
      refused = schedule_later(effect, place, now)
    elseif command == 'SET' and (kind == 'set' or kind == 'insert') then
      _, refused = store(effect, ARGV[place + 1])
    elseif command == 'SET' and kind == 'replace' then
      _, refused = store(effect, ARGV[place + 2])
    elseif command == 'SET' and kind == 'once' then
      _, refused = store(effect, 'true')
    elseif command == 'INCRBY' and kind == 'increment' then
      _, refused = write('INCRBY', effect.key, effect.by)
    elseif command == 'DEL' and kind == 'delete' then
      _, refused = write('DEL', effect.key)
    elseif command == 'DEL' and kind == 'cancel' then
      refused = cancel_later(effect, place)
    end
    if refused then
      return refused
    end
  end
end

-- Writes the effects of a commit after all checks. Returns its line of the reply, or nil and the
-- error of the call, which has then written nothing.
local function write_effects(n, now)
  local line, full, failed = append_entries(n, now)
  if not line then
    return full, failed
  end
  if not is_plain[n] then
    local refused = write_all(n, 'ZADD', now) or write_all(n, 'SET') or write_all(n, 'INCRBY')
      or write_all(n, 'DEL')
    if refused then
      return nil, refused
    end
  end
  return line
end

-- Checks and writes the commit `n`; without `now` it only checks. Returns its line of the reply, or nil
-- and the error of the call.
local function commit_effects(n, now)
  local refused = refusal(n)
  if refused or not now then
    return refused or 'done'
  end
  return write_effects(n, now)
end

-- Returns an error if the session cannot be stored at the end of the call.
local function session_problem(session, ttl)
  local millis = tonumber(ttl)
  if not is_time(millis) or millis < 1 then
    return redis.error_reply('ERR not a time to live of a session')
  end
  return denied('SET', session, 'a', 'PX', '1')
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
