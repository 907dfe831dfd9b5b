-- What follows any change to a lane, and what becomes of messages that leave it.

local woken, woken_any, due_changed = {}, false, false

local function wake(label)
  woken[label] = true
  woken_any = true
end

local function close_lane(L)
  call('UNLINK', key_of('at', L.lane), L.stream, key_of('back', L.lane), key_of('x', L.lane),
       key_of('aside', L.lane))
  call('SREM', B .. 'lanes', L.lane)
  call('EXPIRE', key_of('info', L.lane), KEPT_S)
  call('EXPIRE', key_of('out', L.lane), KEPT_S)
  L.there, L.f, L.dirty = false, {}, {}
  if count('lanes:' .. L.class, -1) == 0 then
    set_counter('vt:' .. L.class, 0)
    set_counter('served:' .. L.class, 0)
    call('DEL', B .. 'flow:' .. L.class)
  end
  -- one other lane, by chance: its rows may have ended with their time
  local other = call('ZRANDMEMBER', B .. 'rows')
  if other and other ~= L.lane and call('EXISTS', key_of('info', other)) == 0 then
    call('ZREM', B .. 'rows', other)
  end
end

local function refresh(L)
  if not L.there then return end
  if not L.head_known then look_at_head(L) end
  local q = num(L, 'q')
  if q == 0 then set_head(L, '', 0) end
  local label, due = L.f.hl, num(L, 'hd')
  if label ~= L.f.hc or q ~= num(L, 'hw') then
    if L.f.hc then add_hash(B .. 'heads', L.f.hc, -num(L, 'hw')) end
    if label then add_hash(B .. 'heads', label, q) end
    put(L, 'hc', label or '')
    put(L, 'hw', q)
  end
  local wanted
  if label and due <= now and (num(L, 'leased') == 0 or num(L, 'leased') < slots(label)) then
    wanted = label
  end
  if wanted ~= L.f.rl then
    if L.f.rl then remove_ready(L, L.f.rl) end
    if wanted then add_ready(L, wanted) end
    put(L, 'rl', wanted or '')
  end
  if label and due > now then
    if L.f.bl ~= L.f.hd then
      call('ZADD', B .. 'blocked', due, L.lane)
      put(L, 'bl', L.f.hd)
      due_changed = true
    end
  elseif L.f.bl then
    call('ZREM', B .. 'blocked', L.lane)
    put(L, 'bl', '')
  end
  if wanted then
    -- work of a user who holds as much as it may wakes nobody
    if USER_MAX == 0 or busy(L.user) < USER_MAX then wake(wanted) end
  elseif num(L, 'h') == 0 then
    close_lane(L)
  end
end

-- What this call settled, by lane: rows of `out`, and the keys in the order in which they leave.
local ends = {}

local function end_row(L, key, state, started, attempts, error)
  local rows = ends[L.lane]
  if not rows then
    rows = { rows = {}, keys = {} }
    ends[L.lane] = rows
  end
  rows.rows[#rows.rows + 1] = key
  rows.rows[#rows.rows + 1] =
    state .. ' ' .. (started or '-') .. ' ' .. WALL .. ' ' .. (attempts or 0) .. '\n' .. (error or '')
  return rows
end

local function note_cancelled(key) call('ZADD', B .. 'cancelled', wall, key) end

local function ended(L, key, state, started, attempts, error)
  local rows = end_row(L, key, state, started, attempts, error)
  rows.keys[#rows.keys + 1] = key
  if state == 'K' then note_cancelled(key) end
end

-- `key` is done ('C') or cancelled ('K'), and so is what it runs for.
local function settle_key(L, key, state, x, started)
  local error = state ~= 'C' and x.e or ''
  for i = #(x.m or {}), 1, -1 do
    local one = x.m[i]
    call('HDEL', key_of('aside', L.lane), one)
    drop_state(L, one)
    ended(L, one, state, started or x.s, x.a, error)
  end
  local number = 1 + #(x.m or {})
  bump(L, 'h', -number)
  count('held', -number)
  ended(L, key, state, started or x.s, x.a, error)
end

local function forget_letter(key)
  local text = call('HGET', B .. 'dead', key)
  call('HDEL', B .. 'dead', key)
  call('ZREM', B .. 'dead_order', key)
  local d = cjson.decode(text)
  local L = find_lane(d.lane)
  for _, one in ipairs(d.m or {}) do
    call('HDEL', key_of('absorbed', d.lane), one)
    ended(L, one, 'F', d.s, d.attempts, d.error)
  end
  ended(L, key, 'F', d.s, d.attempts, d.error)
end

-- `e` leaves its lane for the dead letters; what it runs for waits there with it.
local function bury(L, e, x, error, started)
  local m = x.m or {}
  for _, one in ipairs(m) do
    local text = call('HGET', key_of('aside', L.lane), one)
    if text then
      call('HSET', key_of('absorbed', L.lane), one, text)
      call('HDEL', key_of('aside', L.lane), one)
    end
    drop_state(L, one)
    end_row(L, one, 'F', started or x.s, x.a, error)
  end
  drop_state(L, e.key)
  end_row(L, e.key, 'F', started or x.s, x.a, error)
  bump(L, 'h', -1 - #m)
  count('held', -1 - #m)
  call('HSET', B .. 'where', e.key, 'x ' .. L.lane)
  call('HSET', B .. 'dead', e.key, cjson.encode({
    lane = L.lane, label = e.label, message = e.message, parent = e.parent, error = error,
    attempts = x.a or 0, recoveries = x.r or 0, first = e.at, died = WALL, s = started or x.s,
    m = #m > 0 and m or nil }))
  call('ZADD', B .. 'dead_order', count('letters', 1), e.key)
  while call('ZCARD', B .. 'dead_order') > LETTERS_MAX do
    forget_letter(call('ZRANGE', B .. 'dead_order', 0, 0)[1])
    count('letters_dropped', 1)
  end
end

-- Drop the oldest settled rows beyond the bound, and those that are older than a week.
local function trim_rows()
  local list = B .. 'settled'
  while true do
    local item = call('LINDEX', list, 0)
    if not item then return end
    local at, number, lane, keys = string.match(item, '^(%S+) (%d+) (%S+) (.*)$')
    local over = counter('settled') - STATUSES_MAX
    local old = tonumber(at) <= wall - KEPT_S
    if over <= 0 and not old then return end
    local names = {}
    for key in string.gmatch(keys, '%S+') do names[#names + 1] = key end
    local drop = old and #names or math.min(over, #names)
    local gone = {}
    for i = 1, drop do
      -- a key may be back: a dead letter that was retried
      if call('HEXISTS', B .. 'where', names[i]) == 0 then gone[#gone + 1] = names[i] end
    end
    many('HDEL', key_of('info', lane), gone)
    many('HDEL', key_of('out', lane), gone)
    count('settled', -drop)
    if drop == #names then
      call('LPOP', list)
    else
      call('LSET', list, 0, at .. ' ' .. (#names - drop) .. ' ' .. lane .. ' ' ..
           table.concat(names, ' ', drop + 1))
    end
  end
end
