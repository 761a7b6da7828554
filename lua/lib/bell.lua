-- Rings the bell of a topic's messages for later. This text stands in front of the scripts that use it.
--
-- The bell is a stream of one entry. Processes that wait for its next entry look at the topic when it
-- comes.

-- Every subscription looks at its topic every five seconds and then knows when the next message is due.
-- So only a message that is due before the next look rings, and twice the time allows for a look that
-- fails.
local NEAR_MILLIS = 10000

local rung = {}

-- Rings for a message, unless its time is far or the call has rung this bell.
local function ring_if_near(bell, due, now)
  if due - now < NEAR_MILLIS and not rung[bell] then
    rung[bell] = true
    -- By pcall: the message is written, and a lost ring only makes it late.
    redis.pcall('XADD', bell, 'MAXLEN', '1', '*', 'due', string.format('%.0f', due))
  end
end
