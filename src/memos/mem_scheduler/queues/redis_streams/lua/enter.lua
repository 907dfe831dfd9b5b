-- Messages that come in.

-- `e` will run for the newest message of its label that waits unrun.
local function absorb(L, e)
  local older = L.f['n:' .. e.label]
  put(L, 'n:' .. e.label, e.key)
  if not older then return end
  local x = state_of(L, older)
  local m = x.m or {}
  if #m >= ABSORBED_MAX then return end
  local id = string.match(call('HGET', B .. 'where', older), '^q(%S+) ')
  local old = read_entry(L, id)
  call('XDEL', L.stream, id)
  keep_aside(L, old)
  waiting_left(L, old.label, 1)
  L.head_known = false
  local mine = { older }
  for _, one in ipairs(m) do mine[#mine + 1] = one end
  for _, one in ipairs(mine) do
    put_state(L, one, { i = e.key })
    call('HSET', B .. 'where', one, 'a' .. e.key .. ' ' .. L.lane)
  end
  put_state(L, e.key, { m = mine })
end

local stamp
local function enter(L, rows, wheres, e, row, wait_s)
  stamp = stamp or string.format('%.0f', count('seq', 1)) .. ' ' .. WALL .. ' '
  rows[#rows + 1] = e.key
  rows[#rows + 1] = stamp .. row
  bump(L, 'h', 1)
  count('held', 1)
  if wait_s > 0 then delay(L, e, now + wait_s) return end
  if policy(e.label).coalesce then
    queue_entry(L, e)
    if L.f['n:' .. e.label] ~= e.key then absorb(L, e) end
    return
  end
  if num(L, 'q') == 0 then set_head(L, e.label, 0) end
  local id = append(L, e)
  wheres[#wheres + 1] = e.key
  wheres[#wheres + 1] = 'q' .. id .. ' ' .. L.lane
  bump(L, 'q', 1)
  bump(L, 'q:' .. e.label, 1)
  count('queued', 1)
end

-- The rows of a business task: `task:<user>/<task>` names its lanes and keys.
local function of_task(task, members)
  many('SADD', B .. 'task:' .. task, members)
  call('EXPIRE', B .. 'task:' .. task, KEPT_S)
end

-- The followup that stands at ARGV[at]: lane, key, label, row, message, parent, delay_s, task. It is queued
-- unless it is live already; it is never refused. Returns where the next one stands.
local function enter_followup(at)
  local lane, key = ARGV[at], ARGV[at + 1]
  if call('HEXISTS', B .. 'where', key) == 0 then
    local L, rows, wheres = open_lane(lane), {}, {}
    call('HDEL', key_of('out', lane), key)
    enter(L, rows, wheres, { key = key, label = ARGV[at + 2], at = WALL, message = ARGV[at + 4],
                             parent = ARGV[at + 5] }, ARGV[at + 3], tonumber(ARGV[at + 6]))
    many('HSET', key_of('info', lane), rows, 2)
    many('HSET', B .. 'where', wheres, 2)
    if ARGV[at + 7] ~= '' then of_task(ARGV[at + 7], { key .. ' ' .. lane }) end
  end
  return at + 8
end
