-- Takes dead letters out: back to their group's redo lane, or away.
--
-- The parcel is written before the record is removed. Only one of two who take the same record
-- finds it.
--
-- KEYS[1]  the group's dead letters, a stream
-- KEYS[2]  their counts, a hash
-- KEYS[3]  the group's redo lane, a stream
-- ARGV[1]  'redrive' or 'purge'
-- then for each record:
-- ITEM[1]  its id
-- ITEM[2]  redrive: the parcel
--
-- Returns for each record 1, or 0 when it is not there.
-- A key of another type is found before anything is written.
for at, kind in pairs({[2] = 'hash', [3] = 'stream'}) do
  local held = redis.call('TYPE', KEYS[at]).ok
  if held ~= 'none' and held ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. held .. ', not a ' .. kind)
  end
end
local done = {}
for at = 2, #ARGV, 2 do
  local id = ARGV[at]
  local record = redis.call('XRANGE', KEYS[1], id, id)[1]
  if not record then
    done[#done + 1] = 0
  else
    if ARGV[1] == 'redrive' then
      redis.call('XADD', KEYS[3], '*', 'parcel', ARGV[at + 1])
    end
    redis.call('XDEL', KEYS[1], id)
    for field = 1, #record[2], 2 do
      local name = record[2][field]
      if name ~= 'record' then
        local count = name .. ':' .. record[2][field + 1]
        if redis.call('HINCRBY', KEYS[2], count, -1) <= 0 then
          redis.call('HDEL', KEYS[2], count)
        end
      end
    end
    done[#done + 1] = 1
  end
end
return done
