-- Leases. One is a text of three lines of JSON: what it is, the ids and the keys of its messages.
--
-- Its epoch is a counter of this server, and goes back when the server loses writes (a restart without a file, a
-- failover to a replica that lagged). So a holder proves itself by the epoch and by the claim that took it,
-- whose name no other call ever has.

function Q.lease_of(epoch, text)
  text = text or call('HGET', B .. 'leases', epoch)
  if not text then return nil end
  local head, ids, keys = string.match(text, '^([^\n]*)\n([^\n]*)\n(.*)$')
  local lease = cjson.decode(head)
  lease.ids_text, lease.keys_text = ids, keys
  return lease
end

-- The stream ids and the keys of its messages; read only by those who need them.
function Q.ids_of(lease) return cjson.decode(lease.ids_text) end
function Q.keys_of(lease) return cjson.decode(lease.keys_text) end

-- The length of a lease: the shortest of its labels'.
function Q.lease_s(labels)
  local shortest
  for label in pairs(labels) do
    local ms = Q.policy(label).min_idle_ms
    if not shortest or ms < shortest then shortest = ms end
  end
  return shortest / 1000
end

function Q.end_lease(epoch, lease, L)
  C.over[#C.over + 1] = epoch
  if USER_MAX > 0 then Q.drop_leases() end -- what a user holds is counted from them
  Q.bump(L, 'leased', -1)
  Q.put(L, 'slot:' .. lease.slot, '')
  for _, label in ipairs(Q.less_busy(L.user)) do Q.wake(label) end
end

function Q.drop_leases()
  Q.many('HDEL', B .. 'leases', C.over)
  Q.many('ZREM', B .. 'leased', C.over)
  C.over = {}
end

-- `back`: the entries {id, label} that wait again, in order.
function Q.hand_back(L, back)
  if #back == 0 then return end
  if Q.num(L, 'leased') == 0 then
    Q.put(L, 'cur', '')
    if Q.num(L, 'back') > 0 then
      call('DEL', Q.key_of('back', L.lane))
      Q.put(L, 'back', 0)
    end
  else
    local ids = {}
    for i = #back, 1, -1 do ids[#ids + 1] = back[i].id end
    Q.many('LPUSH', Q.key_of('back', L.lane), ids)
    Q.bump(L, 'back', #ids)
  end
  for _, one in ipairs(back) do Q.bump(L, 'q:' .. one.label, 1) end
  Q.bump(L, 'q', #back)
  Q.count('queued', #back)
  L.head_known = false
end

function Q.delay(L, e, due)
  Q.keep_aside(L, e)
  call('HSET', B .. 'where', e.key, 'd ' .. L.lane)
  call('ZADD', B .. 'delayed', due, L.lane .. ' ' .. e.key)
  Q.bump(L, 'd:' .. e.label, 1)
  Q.count('delayed', 1)
  C.due_changed = true
end

function Q.instance_of(lease) return string.match(lease.call, '^(.*):') end

-- An instance says that it is there: `text` is JSON of its name, host, pid, labels and since when; "" says nothing.
function Q.note_presence(text)
  if text == '' then return end
  call('HSET', B .. 'instances', cjson.decode(text).name, text)
  call('ZADD', B .. 'instances_seen', WALL, cjson.decode(text).name)
  local over = call('ZRANGE', B .. 'instances_seen', 0, -INSTANCES_MAX - 1)
  for _, name in ipairs(call('ZRANGEBYSCORE', B .. 'instances_seen', '-inf', Q.exact(wall - 2 * SEEN_S))) do
    over[#over + 1] = name
  end
  if #over == 0 then return end
  local holding = {}
  for _, held in ipairs(call('HVALS', B .. 'leases')) do
    holding[Q.instance_of(cjson.decode(string.match(held, '^([^\n]*)')))] = true
  end
  for _, name in ipairs(over) do
    if not holding[name] then
      call('HDEL', B .. 'instances', name)
      call('ZREM', B .. 'instances_seen', name)
    end
  end
end

-- The payloads of those that a message with state `x` runs for, oldest first: {key, message} each.
function Q.payloads(L, x)
  local found = {}
  for i = #(x.m or {}), 1, -1 do
    local text = call('HGET', Q.key_of('aside', L.lane), x.m[i])
    if text then found[#found + 1] = { x.m[i], Q.whole(Q.unpacked(text)).message } end
  end
  return found
end
