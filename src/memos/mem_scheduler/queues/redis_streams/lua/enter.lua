-- Messages that come in.

-- `e` will run for the newest message of its label that waits unrun.
function Q.absorb(L, e)
  local older = L.f['n:' .. e.label]
  Q.put(L, 'n:' .. e.label, e.key)
  if not older then return end
  local x = Q.state_of(L, older)
  local m = x.m or {}
  if #m >= ABSORBED_MAX then return end
  local id = string.match(call('HGET', B .. 'where', older), '^q(%S+) ')
  local old = Q.read_entry(L, id)
  Q.remove_entries(L, { id })
  Q.keep_aside(L, old)
  Q.waiting_left(L, old.label, 1)
  L.head_known = false
  local mine = { older }
  for _, one in ipairs(m) do mine[#mine + 1] = one end
  for _, one in ipairs(mine) do
    Q.put_state(L, one, { i = e.key })
    call('HSET', B .. 'where', one, 'a' .. e.key .. ' ' .. L.lane)
  end
  Q.put_state(L, e.key, { m = mine })
end

-- What a call brings into a lane: rows of `info`, places for `where` (of several lanes), and how many wait by
-- label.
function Q.new_arrivals(wheres) return { rows = {}, wheres = wheres, queued = {}, number = 0, waiting = 0 } end

function Q.enter(L, new, key, label, parent, message, row, wait_s)
  C.stamp = C.stamp or string.format('%.0f', Q.count('seq', 1)) .. ' ' .. WALL .. ' '
  local rows = new.rows
  local at = #rows
  rows[at + 1] = key
  rows[at + 2] = C.stamp .. row
  new.number = new.number + 1
  local value = Q.pack(key, label, WALL, parent, message)
  if wait_s > 0 then
    Q.delay(L, { key = key, label = label, value = value }, now + wait_s)
  elseif Q.policy(label).coalesce then
    local e = { key = key, label = label, value = value }
    Q.queue_entry(L, e)
    if L.f['n:' .. label] ~= key then Q.absorb(L, e) end
  else
    if Q.num(L, 'q') == 0 and new.waiting == 0 then Q.set_head(L, label, 0) end
    local wheres = new.wheres
    at = #wheres
    wheres[at + 1] = key
    wheres[at + 2] = 'q' .. call('XADD', L.stream, '*', 'm', value) .. ' ' .. L.lane
    new.queued[label] = (new.queued[label] or 0) + 1
    new.waiting = new.waiting + 1
  end
end

-- `n` messages of a lane from ARGV[at] on: key, label, row, message of each.
function Q.enter_all(L, new, at, n, wait_s)
  C.stamp = C.stamp or string.format('%.0f', Q.count('seq', 1)) .. ' ' .. WALL .. ' '
  local given, stamp, rows, wheres = ARGV, C.stamp, new.rows, new.wheres
  local stream, behind, in_lane = L.stream, '\n' .. WALL .. '\n\n', ' ' .. L.lane
  local r, w, seen, plain = #rows, #wheres, nil, false
  for i = at, at + n * 4 - 1, 4 do
    local key, label = given[i], given[i + 1]
    if label ~= seen then
      seen, plain = label, wait_s <= 0 and not Q.policy(label).coalesce
    end
    if plain then
      if new.waiting == 0 and Q.num(L, 'q') == 0 then Q.set_head(L, label, 0) end
      rows[r + 1] = key
      rows[r + 2] = stamp .. given[i + 2]
      wheres[w + 1] = key
      wheres[w + 2] = 'q' .. call('XADD', stream, '*', 'm', key .. '\n' .. label .. behind .. given[i + 3]) .. in_lane
      r, w = r + 2, w + 2
      new.number, new.waiting = new.number + 1, new.waiting + 1
      new.queued[label] = (new.queued[label] or 0) + 1
    else
      Q.enter(L, new, key, label, '', given[i + 3], given[i + 2], wait_s)
      r, w = #rows, #wheres
    end
  end
end

function Q.arrived(L, new)
  Q.bump(L, 'h', new.number)
  Q.count('held', new.number)
  for label, number in pairs(new.queued) do
    Q.bump(L, 'q:' .. label, number)
    local newest = 'n:' .. label -- of a time in which the label coalesced: what came now is newer, and keeps its place
    if L.f[newest] then Q.put(L, newest, '') end
  end
  if new.waiting > 0 then
    Q.bump(L, 'q', new.waiting)
    Q.count('queued', new.waiting)
  end
  Q.many('HSET', Q.key_of('info', L.lane), new.rows, 2)
end

-- The rows of a business task: `task:<user>/<task>` names its lanes and keys.
function Q.of_task(task, members)
  Q.many('SADD', B .. 'task:' .. task, members)
  call('EXPIRE', B .. 'task:' .. task, KEPT_S)
end

-- The followup that stands at ARGV[at]: lane, key, label, row, message, parent, delay_s, task. It is queued
-- unless it is live already; it is never refused. Returns where the next one stands.
function Q.enter_followup(at)
  local lane, key = ARGV[at], ARGV[at + 1]
  if call('HEXISTS', B .. 'where', key) == 0 then
    local L, new = Q.open_lane(lane), Q.new_arrivals({})
    call('HDEL', Q.key_of('info', lane), '=' .. key)
    Q.enter(L, new, key, ARGV[at + 2], ARGV[at + 5], ARGV[at + 4], ARGV[at + 3], tonumber(ARGV[at + 6]))
    Q.arrived(L, new)
    Q.many('HSET', B .. 'where', new.wheres, 2)
    if ARGV[at + 7] ~= '' then Q.of_task(ARGV[at + 7], { key .. ' ' .. lane }) end
  end
  return at + 8
end
