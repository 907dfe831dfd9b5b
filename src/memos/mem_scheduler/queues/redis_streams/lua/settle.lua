-- What follows any change to a lane, and what becomes of messages that leave it.

function Q.wake(label)
  C.woken[label] = true
  C.woken_any = true
end

function Q.close_lane(L)
  call('UNLINK', Q.key_of('at', L.lane), L.stream, Q.key_of('back', L.lane), Q.key_of('x', L.lane),
       Q.key_of('aside', L.lane))
  L.there, L.f, L.dirty = false, {}, {}
  if Q.count('lanes:' .. L.class, -1) == 0 then
    Q.set_counter('vt:' .. L.class, 0)
    Q.set_counter('served:' .. L.class, 0)
    Q.forget_tags(L.class)
  end
  -- now and then one other lane, by chance: its rows may have ended with their time
  local other = Q.counter('ticket') % 8 == 0 and call('ZRANDMEMBER', B .. 'rows')
  if other and other ~= L.lane and call('EXISTS', Q.key_of('info', other)) == 0 then
    call('ZREM', B .. 'rows', other)
  end
end

-- How many messages wait in lanes whose head has a label: what changed, written by `commit`.
function Q.save_heads()
  for label, by in pairs(C.heads) do Q.add_hash(B .. 'heads', label, by) end
  C.heads = {}
end

function Q.refresh(L)
  if not L.there then return end
  if not L.head_known then Q.look_at_head(L) end
  local q = Q.num(L, 'q')
  if q == 0 then Q.set_head(L, '', 0) end
  local label, due = L.f.hl, Q.num(L, 'hd')
  local counted = Q.num(L, 'hw')
  if label ~= L.f.hc then
    if L.f.hc then C.heads[L.f.hc] = (C.heads[L.f.hc] or 0) - counted end
    if label then C.heads[label] = (C.heads[label] or 0) + q end
    Q.put(L, 'hc', label or '')
    Q.put(L, 'hw', q)
  elseif q ~= counted then
    C.heads[label] = (C.heads[label] or 0) + q - counted
    Q.put(L, 'hw', q)
  end
  local wanted
  if label and due <= now and (Q.num(L, 'leased') == 0 or Q.num(L, 'leased') < Q.slots(label)) then
    wanted = label
  end
  if wanted ~= L.f.rl then
    if L.f.rl then Q.remove_ready(L, L.f.rl) end
    if wanted then Q.add_ready(L, wanted) end
    Q.put(L, 'rl', wanted or '')
  end
  if label and due > now then
    if L.f.bl ~= L.f.hd then
      call('ZADD', B .. 'blocked', due, L.lane)
      Q.put(L, 'bl', L.f.hd)
      C.due_changed = true
    end
  elseif L.f.bl then
    call('ZREM', B .. 'blocked', L.lane)
    Q.put(L, 'bl', '')
  end
  if wanted then
    -- work of a user who holds as much as it may wakes nobody
    if USER_MAX == 0 or Q.busy(L.user) < USER_MAX then Q.wake(wanted) end
  elseif Q.num(L, 'h') == 0 then
    Q.close_lane(L)
  end
end

-- What this call settled, by lane: rows of `info`, each under "=" and its key, and the keys in the order in which
-- they leave.
function Q.end_row(L, key, state, started, attempts, error)
  local rows = C.ends[L.lane]
  if not rows then
    rows = { rows = {}, keys = {} }
    C.ends[L.lane] = rows
  end
  rows.rows[#rows.rows + 1] = '=' .. key
  rows.rows[#rows.rows + 1] =
    state .. ' ' .. (started or '-') .. ' ' .. WALL .. ' ' .. (attempts or 0) .. '\n' .. (error or '')
  return rows
end

function Q.note_cancelled(key) call('ZADD', B .. 'cancelled', wall, key) end

-- All of these keys are done, nothing else is known of them: what most finishes say.
function Q.all_done(L, keys, started)
  local rows = Q.end_row(L, keys[1], 'C', started)
  local text = rows.rows[#rows.rows]
  rows.keys[#rows.keys + 1] = keys[1]
  local at, list, last = #rows.rows, rows.rows, #rows.keys
  for i = 2, #keys do
    list[at + 1] = '=' .. keys[i]
    list[at + 2] = text
    at = at + 2
    rows.keys[last + i - 1] = keys[i]
  end
  Q.bump(L, 'h', -#keys)
  Q.count('held', -#keys)
end

function Q.ended(L, key, state, started, attempts, error)
  local rows = Q.end_row(L, key, state, started, attempts, error)
  rows.keys[#rows.keys + 1] = key
  if state == 'K' then Q.note_cancelled(key) end
end

-- `key` is done ('C') or cancelled ('K'), and so is what it runs for.
function Q.settle_key(L, key, state, x, started)
  local error = state ~= 'C' and x.e or ''
  for i = #(x.m or {}), 1, -1 do
    local one = x.m[i]
    call('HDEL', Q.key_of('aside', L.lane), one)
    Q.drop_state(L, one)
    Q.ended(L, one, state, started or x.s, x.a, error)
  end
  local number = 1 + #(x.m or {})
  Q.bump(L, 'h', -number)
  Q.count('held', -number)
  Q.ended(L, key, state, started or x.s, x.a, error)
end

function Q.is_letter(key) return call('HEXISTS', B .. 'dead', key) == 1 end

function Q.forget_letter(key)
  local text = call('HGET', B .. 'dead', key)
  call('HDEL', B .. 'dead', key)
  call('ZREM', B .. 'dead_order', key)
  local d = cjson.decode(text)
  local L = Q.find_lane(d.lane)
  for _, one in ipairs(d.m or {}) do
    call('HDEL', Q.key_of('absorbed', d.lane), one)
    Q.ended(L, one, 'F', d.s, d.attempts, d.error)
  end
  Q.ended(L, key, 'F', d.s, d.attempts, d.error)
end

-- `e` leaves its lane for the dead letters; what it runs for waits there with it.
function Q.bury(L, e, x, error, started)
  local m = x.m or {}
  for _, one in ipairs(m) do
    local text = call('HGET', Q.key_of('aside', L.lane), one)
    if text then
      call('HSET', Q.key_of('absorbed', L.lane), one, text)
      call('HDEL', Q.key_of('aside', L.lane), one)
    end
    Q.drop_state(L, one)
    Q.end_row(L, one, 'F', started or x.s, x.a, error)
  end
  Q.whole(e)
  Q.drop_state(L, e.key)
  Q.end_row(L, e.key, 'F', started or x.s, x.a, error)
  Q.bump(L, 'h', -1 - #m)
  Q.count('held', -1 - #m)
  call('HSET', B .. 'where', e.key, 'x ' .. L.lane)
  call('HSET', B .. 'dead', e.key, cjson.encode({
    lane = L.lane, label = e.label, message = e.message, parent = e.parent, error = error,
    attempts = x.a or 0, recoveries = x.r or 0, first = e.at, died = WALL, s = started or x.s,
    m = #m > 0 and m or nil }))
  call('ZADD', B .. 'dead_order', Q.count('letters', 1), e.key)
  while call('ZCARD', B .. 'dead_order') > LETTERS_MAX do
    Q.forget_letter(call('ZRANGE', B .. 'dead_order', 0, 0)[1])
    Q.count('letters_dropped', 1)
  end
end

-- Drop the oldest settled rows beyond the bound, and those that are older than a week.
function Q.trim_rows()
  if Q.counter('settled') <= STATUSES_MAX and Q.count('trims', 1) % 64 ~= 0 then return end
  local list = B .. 'settled'
  while true do
    local item = call('LINDEX', list, 0)
    if not item then return end
    local at, number, lane, keys = string.match(item, '^(%S+) (%d+) (%S+) (.*)$')
    local over = Q.counter('settled') - STATUSES_MAX
    local old = tonumber(at) <= wall - KEPT_S
    if over <= 0 and not old then return end
    local names = {}
    for key in string.gmatch(keys, '%S+') do names[#names + 1] = key end
    local drop = old and #names or math.min(over, #names)
    local gone, places = {}, call('HMGET', B .. 'where', unpack(names, 1, drop))
    for i = 1, drop do
      if not places[i] then -- a key may be back: a dead letter that was retried
        gone[#gone + 1] = names[i]
        gone[#gone + 1] = '=' .. names[i]
      end
    end
    Q.many('HDEL', Q.key_of('info', lane), gone)
    Q.count('settled', -drop)
    if drop == #names then
      call('LPOP', list)
    else
      call('LSET', list, 0, at .. ' ' .. (#names - drop) .. ' ' .. lane .. ' ' ..
           table.concat(names, ' ', drop + 1))
    end
  end
end
