-- Lanes: their records, the stream entries in them, and the head.
--
-- Messages stay in their lane's stream until they are settled. `cur` is the id up to which the lane's
-- entries are leased; what is handed back while others hold batches of the lane stands in `back`; without
-- other holders the cursor goes back to the start, so that an ordered lane keeps its order.

function Q.key_of(kind, lane) return B .. kind .. ':' .. lane end

function Q.find_lane(lane)
  local L = C.lanes[lane]
  if L then return L end
  local flat = call('HGETALL', Q.key_of('at', lane))
  local f = {}
  for i = 1, #flat, 2 do
    if flat[i + 1] ~= '' then f[flat[i]] = flat[i + 1] end -- what is nothing again stays as an empty text
  end
  local user, class = string.match(lane, '^([^/]*)/.*/([^/]*)$')
  L = { lane = lane, user = user, class = class, f = f, dirty = {}, there = #flat > 0, was_there = #flat > 0,
        stream = Q.key_of('lane', lane), head_known = true }
  C.lanes[lane] = L
  C.lane_list[#C.lane_list + 1] = L
  return L
end

function Q.num(L, name) return tonumber(L.f[name] or 0) end

function Q.put(L, name, value)
  if value == 0 or value == '' then value = nil end
  L.f[name] = value
  L.dirty[name] = true
end

function Q.bump(L, name, by) Q.put(L, name, Q.num(L, name) + by) end

function Q.open_lane(lane)
  local L = Q.find_lane(lane)
  if not L.there then
    L.there = true
    -- a lane that has rows stands among `rows` already
    if call('PERSIST', Q.key_of('info', lane)) == 0 then call('ZADD', B .. 'rows', 0, lane) end
    Q.count('lanes:' .. L.class, 1)
  end
  return L
end

-- Exceptional state of live messages, as JSON by key: only those that failed, were lost, cancelled while
-- running, coalesced, delayed or handed back have any. "@<id>" says who stands at a stream entry instead.
function Q.state_of(L, key)
  local text = call('HGET', Q.key_of('x', L.lane), key)
  return text and cjson.decode(text) or {}
end

function Q.put_text(L, name, text)
  if not L.f.x then Q.put(L, 'x', 1) end
  call('HSET', Q.key_of('x', L.lane), name, text)
end

function Q.put_state(L, key, x) Q.put_text(L, key, cjson.encode(x)) end
function Q.drop_state(L, key) call('HDEL', Q.key_of('x', L.lane), key) end

-- A message is one text, "key\nlabel\nat\nparent\nmessage": one field of its stream entry, and the same wherever
-- else it is kept. An entry is {id=, key=, label=, value=}; `whole` adds at, parent and message.
function Q.pack(key, label, at, parent, message)
  return key .. '\n' .. label .. '\n' .. at .. '\n' .. parent .. '\n' .. message
end

function Q.unpacked(value, id)
  local key, label = string.match(value, '^([^\n]*)\n([^\n]*)\n')
  return { id = id, key = key, label = label, value = value }
end

function Q.whole(e)
  e.at, e.parent, e.message = string.match(e.value, '^[^\n]*\n[^\n]*\n([^\n]*)\n([^\n]*)\n(.*)$')
  return e
end

function Q.entry_of(L, raw)
  local redirect = L.f.redirected and call('HGET', Q.key_of('x', L.lane), '@' .. raw[1])
  return Q.unpacked(redirect or raw[2][2], raw[1])
end

function Q.read_entry(L, id)
  local raw = call('XRANGE', L.stream, id, id)[1]
  return raw and Q.entry_of(L, raw)
end

-- Settled entries leave the stream, and with them what says who stands there instead.
function Q.remove_entries(L, ids)
  Q.many('XDEL', L.stream, ids)
  if not L.f.redirected then return end
  local names = {}
  for i, id in ipairs(ids) do names[i] = '@' .. id end
  Q.many('HDEL', Q.key_of('x', L.lane), names)
end

function Q.queue_entry(L, e)
  local id = call('XADD', L.stream, '*', 'm', e.value)
  call('HSET', B .. 'where', e.key, 'q' .. id .. ' ' .. L.lane)
  if Q.num(L, 'q') == 0 then L.head_known = false end
  Q.bump(L, 'q', 1)
  Q.bump(L, 'q:' .. e.label, 1)
  Q.count('queued', 1)
end

function Q.waiting_left(L, label, number)
  Q.bump(L, 'q', -number)
  Q.bump(L, 'q:' .. label, -number)
  Q.count('queued', -number)
end

-- Payloads of messages that are in no stream: delayed ones, and those that another runs for.
function Q.keep_aside(L, e) call('HSET', Q.key_of('aside', L.lane), e.key, e.value) end

function Q.take_aside(L, key)
  local value = call('HGET', Q.key_of('aside', L.lane), key)
  call('HDEL', Q.key_of('aside', L.lane), key)
  return Q.unpacked(value)
end

-- The head of a lane: the first handed-back entry, else the first behind the cursor.
function Q.first_waiting(L)
  while Q.num(L, 'back') > 0 do
    local id = call('LINDEX', Q.key_of('back', L.lane), 0)
    local e = id and Q.read_entry(L, id)
    if e then return e end
    if id then call('LPOP', Q.key_of('back', L.lane)) end -- it was cancelled
    Q.bump(L, 'back', -1)
  end
  local cur = L.f.cur
  local raw = call('XRANGE', L.stream, cur and ('(' .. cur) or '-', '+', 'COUNT', 1)[1]
  return raw and Q.entry_of(L, raw)
end

function Q.set_head(L, label, due)
  Q.put(L, 'hl', label)
  Q.put(L, 'hd', due and due > 0 and Q.exact(due) or 0)
  L.head_known = true
end

function Q.look_at_head(L)
  if Q.num(L, 'q') == 0 and Q.num(L, 'back') > 0 then -- all that was handed back was cancelled
    call('DEL', Q.key_of('back', L.lane))
    Q.put(L, 'back', 0)
  end
  local e = Q.num(L, 'q') > 0 and Q.first_waiting(L)
  if not e then return Q.set_head(L, '', 0) end
  Q.set_head(L, e.label, tonumber(Q.state_of(L, e.key).u or 0))
end
