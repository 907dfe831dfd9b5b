-- ARGV from 3: call ("<instance>:<number>"), again ("1" after a lost reply), lanes_max, wait_s (0: the caller
-- does not wait), register ("1": tell that the labels are served), plan (JSON: levels of [class, [labels]]),
-- limits (JSON: label -> messages of a batch), claimed labels (JSON), presence as in `note_presence`, and, of a part
-- of a queue, all of the plan where `plan` is some of it: the reply then ends with the start tag of who is next, by
-- class (JSON).
-- Reply: version, seconds to the next due time or "", labels whose lease was lost (JSON or ""), then a batch
-- each: {epoch, lane, slot, length_s, now, wall, states (JSON or ""), then the text of each message}. A state
-- has `p`: the payloads of those that the message runs for.
local caller, again, lanes_max, wait_s = ARGV[3], ARGV[4] == '1', tonumber(ARGV[5]), tonumber(ARGV[6])
local plan, limits, claimed = cjson.decode(ARGV[8]), cjson.decode(ARGV[9]), cjson.decode(ARGV[10])
local instance = string.match(caller, '^(.*):')
local FRUITLESS_MAX = 1000 -- lanes looked at in vain, so that no claim keeps the server for long
local lost, tops = {}, nil
local NOW = Q.exact(now)

-- What a batch takes: ids, keys and texts of its messages, how many by label, exceptional states by key (nil:
-- none).
local function nothing() return { n = 0, ids = {}, keys = {}, texts = {}, labels = {} } end

local function put_in(batch, id, key, label, text)
  local n = batch.n + 1
  batch.n, batch.ids[n], batch.keys[n], batch.texts[n] = n, id, key, text
  batch.labels[label] = (batch.labels[label] or 0) + 1
end

local function batch_of(entries)
  local batch = nothing()
  for _, e in ipairs(entries) do
    put_in(batch, e.id, e.key, e.label, e.value)
    if e.x then
      batch.states = batch.states or {}
      batch.states[e.key] = e.x
    end
  end
  return batch
end

local function deliver(epoch, lease, batch)
  local states, texts = '', batch.texts
  if batch.states then
    for _, x in pairs(batch.states) do
      if x.m then x.p = Q.payloads(Q.find_lane(lease.lane), x) end
    end
    states = cjson.encode(batch.states)
  end
  local reply = { epoch, lease.lane, lease.slot, Q.exact(lease.length), lease.at, lease.wall, states }
  for i = 1, batch.n do reply[7 + i] = texts[i] end
  return reply
end

-- Nobody renewed the lease: its messages go back to the head, to be claimed one at a time.
local function lose(epoch)
  local lease = Q.lease_of(epoch)
  if not lease then call('ZREM', B .. 'leased', epoch) return end
  local L = Q.find_lane(lease.lane)
  Q.end_lease(epoch, lease, L)
  Q.count('leases_lost', 1)
  local back, ids = {}, Q.ids_of(lease)
  for label in pairs(lease.labels) do lost[label] = true end
  for i, key in ipairs(Q.keys_of(lease)) do
    local x, e = Q.state_of(L, key), Q.read_entry(L, ids[i])
    x.r = (x.r or 0) + 1
    x.y, x.s = Q.exact(now), lease.wall
    if x.c then
      Q.remove_entries(L, { e.id })
      Q.settle_key(L, key, 'K', x)
      Q.drop_state(L, key)
    elseif x.r > Q.policy(e.label).max_recoveries then
      Q.remove_entries(L, { e.id })
      Q.bury(L, e, x, 'its lease was lost ' .. x.r .. ' times: no worker survived the run')
    else
      Q.put_state(L, key, x)
      back[#back + 1] = { id = e.id, label = e.label }
    end
  end
  Q.hand_back(L, back)
  Q.refresh(L)
end

-- Everything that is due: ends of delays, ends of blocks, lost leases.
local function look_after()
  for _, member in ipairs(call('ZRANGEBYSCORE', B .. 'delayed', '-inf', Q.exact(now), 'LIMIT', 0, 1000)) do
    local lane, key = string.match(member, '^(%S+) (.*)$')
    local due = call('ZSCORE', B .. 'delayed', member)
    call('ZREM', B .. 'delayed', member)
    local L = Q.find_lane(lane)
    local e, x = Q.take_aside(L, key), Q.state_of(L, key)
    x.y, x.u = due, nil
    Q.put_state(L, key, x)
    Q.bump(L, 'd:' .. e.label, -1)
    Q.count('delayed', -1)
    Q.queue_entry(L, e)
    Q.refresh(L)
  end
  for _, lane in ipairs(call('ZRANGEBYSCORE', B .. 'blocked', '-inf', Q.exact(now), 'LIMIT', 0, 1000)) do
    Q.refresh(Q.find_lane(lane))
  end
  for _, epoch in ipairs(call('ZRANGEBYSCORE', B .. 'leased', '-inf', Q.exact(now), 'LIMIT', 0, 1000)) do
    lose(epoch)
  end
end

-- The next lane: levels in order, with one claim in 16 for the lower ones; in a level the class that was
-- served longest ago; in a class the user whose turn it is.
local function pick()
  local picks, order = Q.counter('picks'), plan
  local n = #plan
  if picks % 16 == 15 and n > 1 then
    order = {}
    if math.floor(picks / 16) % 2 == 1 then
      for i = 2, n do order[#order + 1] = plan[i] end
    else
      for i = n, 2, -1 do order[#order + 1] = plan[i] end
    end
    order[#order + 1] = plan[1]
  end
  for _, level in ipairs(order) do
    local chosen
    for _, class in ipairs(level) do
      local any = false
      for _, label in ipairs(class[2]) do any = Q.top_of(class[1], label) or any end
      if any and (not chosen or Q.counter('served:' .. class[1]) < Q.counter('served:' .. chosen[1])) then
        chosen = class
      end
    end
    if chosen then
      local L = Q.pop_ready(chosen[1], chosen[2])
      Q.set_counter('served:' .. chosen[1], Q.count('picks', 1))
      return L
    end
  end
end

-- What one batch may hold, from the head, where no message of the lane has an exceptional state.
local function take_plain(L)
  local limit, cur = limits[L.f.hl], L.f.cur
  local raws = call('XRANGE', L.stream, cur and ('(' .. cur) or '-', '+', 'COUNT', limit + 1)
  local n, seen, before, ids, keys, texts, labels, next_label = 0, nil, 0, {}, {}, {}, {}, nil
  local match = string.match
  for i = 1, #raws do
    local raw = raws[i]
    local text = raw[2][2]
    local key, label = match(text, '^([^\n]*)\n([^\n]*)\n')
    if label ~= seen then
      if seen then labels[seen] = (labels[seen] or 0) + n - before end
      seen, before = label, n
      if limits[label] and limits[label] < limit then limit = limits[label] end
    end
    if n >= limit or not limits[label] then
      next_label = label
      break
    end
    n = n + 1
    ids[n], keys[n], texts[n] = raw[1], key, text
  end
  if n > before then labels[seen] = (labels[seen] or 0) + n - before end
  if n == 0 then
    L.head_known = false
    return nothing()
  end
  Q.put(L, 'cur', ids[n])
  if next_label then Q.set_head(L, next_label, 0) else L.head_known = false end
  return { n = n, ids = ids, keys = keys, texts = texts, labels = labels }
end

-- What one batch may hold, from the head: a message whose lease was lost goes alone. Empty when the head that
-- made the lane ready may not run after all: the clock of the server went back.
local function take(L)
  if not L.f.x and not L.f.redirected and Q.num(L, 'back') == 0 then return take_plain(L) end
  local limit = limits[L.f.hl]
  local raws, from_back = {}, Q.num(L, 'back') > 0
  if from_back then
    for _, id in ipairs(call('LRANGE', Q.key_of('back', L.lane), 0, limit)) do
      raws[#raws + 1] = call('XRANGE', L.stream, id, id)[1] or { id }
    end
  else
    local cur = L.f.cur
    raws = call('XRANGE', L.stream, cur and ('(' .. cur) or '-', '+', 'COUNT', limit + 1)
  end
  local with_states = L.f.x
  local entries, seen, passed, next_entry = {}, nil, 0, nil
  for _, raw in ipairs(raws) do
    if raw[2] then
      local e = Q.entry_of(L, raw)
      local text = with_states and call('HGET', Q.key_of('x', L.lane), e.key)
      if text then e.x = cjson.decode(text) end
      if e.label ~= seen then
        seen = e.label
        if limits[seen] and limits[seen] < limit then limit = limits[seen] end
      end
      local x = e.x or {}
      if not limits[seen] or #entries >= limit or tonumber(x.u or 0) > now
         or (#entries > 0 and (x.r or 0) > 0) then
        next_entry = e
        break
      end
      entries[#entries + 1] = e
      passed = passed + 1
      if (x.r or 0) > 0 then limit = 0 end
    else
      passed = passed + 1 -- it was cancelled while it stood here
    end
  end
  if from_back then
    call('LTRIM', Q.key_of('back', L.lane), passed, -1)
    Q.bump(L, 'back', -passed)
    L.head_known = false
  elseif #entries == 0 then
    L.head_known = false
  else
    Q.put(L, 'cur', entries[#entries].id)
    if next_entry then
      Q.set_head(L, next_entry.label, tonumber((next_entry.x or {}).u or 0))
    else
      L.head_known = false
    end
  end
  return batch_of(entries)
end

-- A leased message is no longer the one that a newer message of its label may join.
local function no_longer_newest(L, batch)
  for label in pairs(batch.labels) do
    local name = 'n:' .. label
    local newest = L.f[name]
    for i = 1, newest and batch.n or 0 do
      if batch.keys[i] == newest then Q.put(L, name, '') end
    end
  end
end

local leases, leased = {}, {}
local function save_leases()
  Q.many('HSET', B .. 'leases', leases, 2)
  Q.many('ZADD', B .. 'leased', leased, 2)
  leases, leased = {}, {}
end

-- The next batch; false when the lane whose turn it was had nothing to give, nil when there is no lane.
local function lease_next()
  local L = pick()
  if not L then return nil end
  local batch = take(L)
  if batch.n == 0 then
    Q.refresh(L)
    return false
  end
  local lease = { lane = L.lane, slot = 0, call = caller, labels = batch.labels, claimed = claimed, at = NOW,
                  wall = WALL }
  no_longer_newest(L, batch)
  for label, number in pairs(lease.labels) do Q.waiting_left(L, label, number) end
  while L.f['slot:' .. lease.slot] do lease.slot = lease.slot + 1 end
  Q.put(L, 'slot:' .. lease.slot, '1')
  Q.bump(L, 'leased', 1)
  lease.length = Q.lease_s(lease.labels)
  local epoch = Q.count('epoch', 1)
  leases[#leases + 1] = epoch
  leases[#leases + 1] = cjson.encode(lease) .. '\n["' .. table.concat(batch.ids, '","') .. '"]\n' ..
                        cjson.encode(batch.keys)
  leased[#leased + 1] = Q.exact(now + lease.length)
  leased[#leased + 1] = epoch
  if USER_MAX > 0 then save_leases() end -- what a user holds is counted from them
  Q.now_busy()
  Q.charge(L, batch.n)
  Q.refresh(L)
  return deliver(epoch, lease, batch)
end

-- What a lost reply of this very call had leased.
local function leased_before(reply)
  local flat = call('HGETALL', B .. 'leases')
  for i = 1, #flat, 2 do
    local lease = Q.lease_of(flat[i])
    if lease.call == caller then
      local L, entries = Q.find_lane(lease.lane), {}
      for n, id in ipairs(Q.ids_of(lease)) do
        local e = Q.read_entry(L, id)
        local text = call('HGET', Q.key_of('x', L.lane), e.key)
        e.x = text and cjson.decode(text)
        entries[n] = e
      end
      reply[#reply + 1] = deliver(tonumber(flat[i]), lease, batch_of(entries))
    end
  end
end

local reply = { Q.version(), '', '' }

local function next_ones()
  local found = {}
  for _, level in ipairs(cjson.decode(ARGV[12])) do
    for _, class in ipairs(level) do
      local best
      for _, label in ipairs(class[2]) do
        local top = Q.top_of(class[1], label)
        if top and (not best or top[1] < best) then best = top[1] end
      end
      if best then found[class[1]] = Q.exact(best) end
    end
  end
  return next(found) and cjson.encode(found) or '{}'
end

if again then
  leased_before(reply)
  if #reply > 3 then
    if ARGV[12] then reply[#reply + 1] = '{}' end
    return reply
  end
end
if ARGV[7] == '1' then
  local told = {}
  for _, label in ipairs(claimed) do
    told[#told + 1] = Q.exact(now)
    told[#told + 1] = label
  end
  Q.many('ZADD', B .. 'served', told, 2)
  call('ZREMRANGEBYSCORE', B .. 'served', '-inf', Q.exact(now - REPLY_S))
  call('ZREMRANGEBYSCORE', B .. 'cancelled', '-inf', Q.exact(wall - KEPT_S))
  call('ZREMRANGEBYRANK', B .. 'cancelled', 0, -STATUSES_MAX - 1)
end
Q.note_presence(ARGV[11])
look_after()
-- What became ready is looked at below: others are told of what is left, not of what is taken here.
C.woken, C.woken_any = {}, false
local fruitless = 0
while #reply - 3 < lanes_max and fruitless < FRUITLESS_MAX do
  local batch = lease_next()
  if batch == nil then break end
  if batch then reply[#reply + 1] = batch else fruitless = fruitless + 1 end
end
save_leases()
if ARGV[12] then tops = next_ones() end -- before `commit`: it may put users in their place
Q.save_heads()
C.woken, C.woken_any = {}, false
if call('EXISTS', B .. 'waiting') == 1 then
  for _, label in ipairs(call('HKEYS', B .. 'heads')) do
    if C.standing[label] or call('EXISTS', B .. 'ready:' .. label) == 1 then Q.wake(label) end
  end
end
Q.commit()
if #reply == 3 and wait_s > 0 then
  -- GT: another claim of the instance may wait for longer
  call('ZADD', B .. 'waiting', 'GT', Q.exact(now + wait_s), instance)
  call('ZREMRANGEBYSCORE', B .. 'waiting', '-inf', Q.exact(now))
end
local next_due
for _, name in ipairs({ 'delayed', 'blocked', 'leased' }) do
  local score = tonumber(call('ZRANGE', B .. name, 0, 0, 'WITHSCORES')[2])
  if score and (not next_due or score < next_due) then next_due = score end
end
if next_due then reply[2] = Q.exact(next_due - now) end
local names = {}
for label in pairs(lost) do names[#names + 1] = label end
if #names > 0 then reply[3] = cjson.encode(names) end
reply[#reply + 1] = tops
return reply
