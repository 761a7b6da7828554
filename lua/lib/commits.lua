-- Reads commits: deliveries and their effects. This text stands behind effects.lua, in front of the scripts
-- that use it.
--
-- A commit is the entry's id; a word of 'log' or 'redo', 'ack' or 'keep', 'held' or 'only-copy' (commits
-- where nobody holds the delivery, too) and the number of effects, with one space between two of them; the
-- effects.

-- The ids of each stream, and the id and the word of each commit.
local ids, id_of, head_of = {log = {}, redo = {}}, {}, {}

-- Reads the commits from an argument on. `permitted` gets the lane and the id of the first commit of each
-- stream, and returns an error if the caller may not end it. Returns their number, or nil and an error.
local function read_commits(at, permitted)
  local heads, count, failed = {}, 0, nil
  while at <= #ARGV do
    local id, word, next_at = ARGV[at], ARGV[at + 1], nil
    count = count + 1
    -- Most commits of a call have the same word.
    local head = word and heads[word]
    if word and not head then
      local lane, action, holder, effects = string.match(word, '^(%a+) (%a+) ([%a-]+) (%d+)$')
      head = {lane = lane, ids = ids[lane], acknowledges = action == 'ack',
        only_copy = holder == 'only-copy', effects = tonumber(effects)}
      heads[word] = head
    end
    if head and head.ids then
      next_at, failed = read_effects(count, at + 2, head.effects)
      failed = failed or #head.ids == 0 and permitted(head.lane, id)
      if failed then
        return nil, failed
      end
    end
    if not next_at then
      return nil, redis.error_reply('ERR not a commit at argument ' .. at)
    end
    id_of[count], head_of[count] = id, head
    head.ids[#head.ids + 1] = id
    at = next_at
  end
  return count
end

-- Whether a commit's line says that its delivery has ended, if it acknowledges it.
local function has_ended(line)
  return line == 'skipped' or string.sub(line, 1, 4) == 'done'
end

-- Stores the answer of the call. Returns it, or the error of a call that has written nothing.
local function answered(session, number, ttl, lines)
  local reply = table.concat(lines, '\n')
  local _, refused = write('SET', session, number .. ' ' .. reply, 'PX', ttl)
  return refused or reply, refused
end
