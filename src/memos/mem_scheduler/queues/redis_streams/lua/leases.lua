-- Leases. One is a text: what it is in JSON, then the ids and the keys of its messages, a line each.

local function lease_of(epoch)
  local text = call('HGET', B .. 'leases', epoch)
  if not text then return nil end
  local head, ids, keys = string.match(text, '^([^\n]*)\n([^\n]*)\n(.*)$')
  local lease = cjson.decode(head)
  lease.ids, lease.keys = {}, {}
  for id in string.gmatch(ids, '%S+') do lease.ids[#lease.ids + 1] = id end
  for key in string.gmatch(keys, '%S+') do lease.keys[#lease.keys + 1] = key end
  return lease
end

-- The length of a lease: the shortest of its labels'.
local function lease_s(labels)
  local shortest
  for label in pairs(labels) do
    local ms = policy(label).min_idle_ms
    if not shortest or ms < shortest then shortest = ms end
  end
  return shortest / 1000
end

local function end_lease(epoch, lease, L)
  call('HDEL', B .. 'leases', epoch)
  call('ZREM', B .. 'leased', epoch)
  bump(L, 'leased', -1)
  put(L, 'slot:' .. lease.slot, '')
  for _, label in ipairs(less_busy(L.user)) do wake(label) end
end

-- `back`: the entries {id, label} that wait again, in order.
local function hand_back(L, back)
  if #back == 0 then return end
  if num(L, 'leased') == 0 then
    put(L, 'cur', '')
    if num(L, 'back') > 0 then
      call('DEL', key_of('back', L.lane))
      put(L, 'back', 0)
    end
  else
    local ids = {}
    for i = #back, 1, -1 do ids[#ids + 1] = back[i].id end
    many('LPUSH', key_of('back', L.lane), ids)
    bump(L, 'back', #ids)
  end
  for _, one in ipairs(back) do bump(L, 'q:' .. one.label, 1) end
  bump(L, 'q', #back)
  count('queued', #back)
  L.head_known = false
end

local function delay(L, e, due)
  keep_aside(L, e)
  call('HSET', B .. 'where', e.key, 'd ' .. L.lane)
  call('ZADD', B .. 'delayed', due, L.lane .. ' ' .. e.key)
  bump(L, 'd:' .. e.label, 1)
  count('delayed', 1)
  due_changed = true
end

local function instance_of(lease) return string.match(lease.call, '^(.*):') end

-- An instance says that it is there: `text` is JSON of its name, host, pid, labels and since when; "" says nothing.
local function note_presence(text)
  if text == '' then return end
  call('HSET', B .. 'instances', cjson.decode(text).name, text)
  call('ZADD', B .. 'instances_seen', WALL, cjson.decode(text).name)
  local over = call('ZRANGE', B .. 'instances_seen', 0, -INSTANCES_MAX - 1)
  for _, name in ipairs(call('ZRANGEBYSCORE', B .. 'instances_seen', '-inf', exact(wall - 2 * SEEN_S))) do
    over[#over + 1] = name
  end
  if #over == 0 then return end
  local holding = {}
  for _, held in ipairs(call('HVALS', B .. 'leases')) do
    holding[instance_of(cjson.decode(string.match(held, '^([^\n]*)')))] = true
  end
  for _, name in ipairs(over) do
    if not holding[name] then
      call('HDEL', B .. 'instances', name)
      call('ZREM', B .. 'instances_seen', name)
    end
  end
end

-- The payloads of those that a message with state `x` runs for, oldest first: {key, message} each.
local function payloads(L, x)
  local found = {}
  for i = #(x.m or {}), 1, -1 do
    local text = call('HGET', key_of('aside', L.lane), x.m[i])
    if text then found[#found + 1] = { x.m[i], cjson.decode(text).message } end
  end
  return found
end
