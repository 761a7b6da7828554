-- Removes idle consumers that have no pending deliveries, and the sessions of their effects.
--
-- XGROUP DELCONSUMER drops a consumer's pending deliveries for ever, so check and removal must be
-- one step. A live consumer that was removed while idle comes back with its next read.
--
-- A consumer that is out of reach may send its last call again. Without its session it would learn
-- that nobody holds the delivery, and within its lease it would take that for a lost record and write
-- the effects twice. So the session of a consumer that was active within the lease stays and expires by
-- itself, unless the consumer itself has ended.
--
-- KEYS[1]  the log, a stream
-- KEYS[2]  the group's redelivery stream
-- KEYS[3]  the topic's settings, a hash or absent
-- ARGV[1]  the group
-- ARGV[2]  how many milliseconds a consumer must have been idle
-- ARGV[3]  the only consumer to remove, because it has ended, '' for any
-- ARGV[4]  the first part of the keys of sessions: the script adds the consumer
--
-- Returns how many consumers were removed.
-- Check every key's type before the first write: Redis does not roll a script back.
for at, kind in pairs({'stream', 'stream', 'hash'}) do
  local found = redis.call('TYPE', KEYS[at]).ok
  if found ~= 'none' and found ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. found .. ', not a ' .. kind)
  end
end
local names, pending, idle = {}, {}, {}
for lane = 1, 2 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[lane], ARGV[1])
  if consumers.err and not string.find(consumers.err, 'no such key', 1, true)
    and string.sub(consumers.err, 1, 7) ~= 'NOGROUP' then
    return consumers
  end
  -- An absent stream or group has no consumers.
  if not consumers.err then
    for _, flat in ipairs(consumers) do
      local consumer = {}
      for at = 1, #flat, 2 do
        consumer[flat[at]] = flat[at + 1]
      end
      local name = consumer['name']
      if not pending[name] then
        names[#names + 1] = name
        pending[name], idle[name] = 0, consumer['idle']
      end
      pending[name] = pending[name] + consumer['pending']
      idle[name] = math.min(idle[name], consumer['idle'])
    end
  end
end
local lease = tonumber(redis.call('HGET', KEYS[3], 'lease:' .. ARGV[1]) or '0')
local function forget_session(name)
  local key = ARGV[4] .. name
  -- A user with access rules of an earlier version may lack the right, and a slot that moves may have
  -- taken the session along. The session then expires.
  if may('DEL', key) then
    redis.pcall('DEL', key)
  end
end
local removed = 0
for _, name in ipairs(names) do
  if pending[name] == 0 and idle[name] >= tonumber(ARGV[2]) and (ARGV[3] == '' or ARGV[3] == name) then
    for lane = 1, 2 do
      local gone = redis.pcall('XGROUP', 'DELCONSUMER', KEYS[lane], ARGV[1], name)
      if type(gone) == 'table' and string.sub(gone.err, 1, 7) ~= 'NOGROUP'
        and not string.find(gone.err, 'requires the key to exist', 1, true) then
        return gone
      end
    end
    removed = removed + 1
    if idle[name] >= lease then
      forget_session(name)
    end
  end
end
if ARGV[3] ~= '' and (pending[ARGV[3]] or 0) == 0 then
  forget_session(ARGV[3])
end
return removed
