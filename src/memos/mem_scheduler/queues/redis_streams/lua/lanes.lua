-- Lanes: their records, the stream entries in them, and the head.
--
-- Messages stay in their lane's stream until they are settled. `cur` is the id up to which the lane's
-- entries are leased; what is handed back while others hold batches of the lane stands in `back`; without
-- other holders the cursor goes back to the start, so that an ordered lane keeps its order.

local lanes, lane_list = {}, {}

local function key_of(kind, lane) return B .. kind .. ':' .. lane end

local function find_lane(lane)
  local L = lanes[lane]
  if L then return L end
  local flat = call('HGETALL', key_of('at', lane))
  local f = {}
  for i = 1, #flat, 2 do f[flat[i]] = flat[i + 1] end
  local user, class = string.match(lane, '^([^/]*)/.*/([^/]*)$')
  L = { lane = lane, user = user, class = class, f = f, dirty = {}, there = #flat > 0,
        stream = key_of('lane', lane), head_known = true }
  lanes[lane] = L
  lane_list[#lane_list + 1] = L
  return L
end

local function num(L, name) return tonumber(L.f[name] or 0) end

local function put(L, name, value)
  if value == 0 or value == '' then value = nil end
  L.f[name] = value
  L.dirty[name] = true
end

local function bump(L, name, by) put(L, name, num(L, name) + by) end

local function open_lane(lane)
  local L = find_lane(lane)
  if not L.there then
    L.there = true
    call('SADD', B .. 'lanes', lane)
    call('ZADD', B .. 'rows', 0, lane)
    call('PERSIST', key_of('info', lane))
    call('PERSIST', key_of('out', lane))
    count('lanes:' .. L.class, 1)
  end
  return L
end

-- Exceptional state of live messages, as JSON by key: only those that failed, were lost, cancelled while
-- running, coalesced, delayed or handed back have any. "@<id>" says who stands at a stream entry instead.
local function state_of(L, key)
  local text = call('HGET', key_of('x', L.lane), key)
  return text and cjson.decode(text) or {}
end

local function put_state(L, key, x) call('HSET', key_of('x', L.lane), key, cjson.encode(x)) end
local function drop_state(L, key) call('HDEL', key_of('x', L.lane), key) end

-- An entry is {key=, label=, at=, message=, parent=, id=}.
local function entry_of(L, raw)
  local id, f = raw[1], raw[2]
  local redirect = L.f.redirected and call('HGET', key_of('x', L.lane), '@' .. id)
  if redirect then
    local e = cjson.decode(redirect)
    e.id = id
    return e
  end
  return { id = id, key = f[2], label = f[4], at = f[6], message = f[8], parent = f[10] or '' }
end

local function read_entry(L, id)
  local raw = call('XRANGE', L.stream, id, id)[1]
  return raw and entry_of(L, raw)
end

local function append(L, e)
  if e.parent and e.parent ~= '' then
    return call('XADD', L.stream, '*', 'key', e.key, 'label', e.label, 'at', e.at, 'message', e.message,
                'parent', e.parent)
  end
  return call('XADD', L.stream, '*', 'key', e.key, 'label', e.label, 'at', e.at, 'message', e.message)
end

local function queue_entry(L, e)
  local id = append(L, e)
  call('HSET', B .. 'where', e.key, 'q' .. id .. ' ' .. L.lane)
  if num(L, 'q') == 0 then L.head_known = false end
  bump(L, 'q', 1)
  bump(L, 'q:' .. e.label, 1)
  count('queued', 1)
end

local function waiting_left(L, label, number)
  bump(L, 'q', -number)
  bump(L, 'q:' .. label, -number)
  count('queued', -number)
end

-- Payloads of messages that are in no stream: delayed ones, and those that another runs for.
local function keep_aside(L, e)
  call('HSET', key_of('aside', L.lane), e.key,
       cjson.encode({ key = e.key, label = e.label, at = e.at, message = e.message, parent = e.parent }))
end

local function take_aside(L, key)
  local text = call('HGET', key_of('aside', L.lane), key)
  call('HDEL', key_of('aside', L.lane), key)
  return cjson.decode(text)
end

-- The head of a lane: the first handed-back entry, else the first behind the cursor.
local function first_waiting(L)
  while num(L, 'back') > 0 do
    local id = call('LINDEX', key_of('back', L.lane), 0)
    local e = id and read_entry(L, id)
    if e then return e end
    if id then call('LPOP', key_of('back', L.lane)) end -- it was cancelled
    bump(L, 'back', -1)
  end
  local cur = L.f.cur
  local raw = call('XRANGE', L.stream, cur and ('(' .. cur) or '-', '+', 'COUNT', 1)[1]
  return raw and entry_of(L, raw)
end

local function set_head(L, label, due)
  put(L, 'hl', label)
  put(L, 'hd', due and due > 0 and exact(due) or 0)
  L.head_known = true
end

local function look_at_head(L)
  local e = num(L, 'q') > 0 and first_waiting(L)
  if not e then return set_head(L, '', 0) end
  set_head(L, e.label, tonumber(state_of(L, e.key).u or 0))
end
