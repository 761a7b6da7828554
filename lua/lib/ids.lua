-- Remembers the ids of messages in two generations. This text stands in front of the scripts that
-- use it; append_once.lua explains the generations.

-- Adds pairs of a message's id and its entry's id to the current generation, and turns it into the
-- previous one when it has lasted long enough. The caller has read 'since' and 'span' of the current
-- generation and 'span' of the previous one.
local function remember_ids(current, previous, now, window, since, span, span_before, pairs_added)
  since, span, span_before = tonumber(since or now), tonumber(span or 0), tonumber(span_before or 0)
  if span > 0 and now - since >= math.max(span, span_before) then
    -- RENAME alone would free the replaced hash at once, and it can hold a million ids.
    redis.call('UNLINK', previous)
    redis.call('RENAME', current, previous)
    since, span, span_before = now, 0, span
  end
  if window > span then
    redis.call('HSET', current, 'since', string.format('%.0f', since),
      'span', string.format('%.0f', window))
    -- The last id may come at the end of the span, and must stay for a window.
    local ends = since + 2 * math.max(window, span_before)
    redis.call('PEXPIREAT', current, string.format('%.0f', ends))
  end
  redis.call('HSET', current, unpack(pairs_added))
end
