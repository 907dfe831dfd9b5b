-- ARGV from 3: call, keys. Reply: JSON, the keys that were taken out.
local before_this = Q.answered(ARGV[3])
if before_this then return before_this end
local held = {}
for _, text in ipairs(call('HVALS', B .. 'leases')) do
  for _, key in ipairs(cjson.decode(string.match(text, '\n[^\n]*\n(.*)$'))) do held[key] = true end
end

-- The next of those that `x` runs for takes over.
local function hand_over(L, x)
  local heir = Q.take_aside(L, x.m[1])
  local rest = {}
  for i = 2, #x.m do
    rest[#rest + 1] = x.m[i]
    Q.put_state(L, x.m[i], { i = heir.key })
    call('HSET', B .. 'where', x.m[i], 'a' .. heir.key .. ' ' .. L.lane)
  end
  x.m = nil
  if #rest > 0 then Q.put_state(L, heir.key, { m = rest }) else Q.drop_state(L, heir.key) end
  return heir
end

local function absorbed_left(L, key, runner)
  local place = string.sub(call('HGET', B .. 'where', runner) or '', 1, 1)
  if held[runner] or (place ~= 'q' and place ~= 'd') then return false end
  local x, rest = Q.state_of(L, runner), {}
  for _, one in ipairs(x.m or {}) do
    if one ~= key then rest[#rest + 1] = one end
  end
  x.m = #rest > 0 and rest or nil
  Q.put_state(L, runner, x)
  call('HDEL', Q.key_of('aside', L.lane), key)
  return true
end

local function delayed_left(L, key, x)
  local e = Q.take_aside(L, key)
  call('ZREM', B .. 'delayed', L.lane .. ' ' .. key)
  Q.bump(L, 'd:' .. e.label, -1)
  Q.count('delayed', -1)
  if x.m then Q.queue_entry(L, hand_over(L, x)) end
end

local function queued_left(L, key, x, id)
  local e = Q.read_entry(L, id)
  if x.m then -- the heir stands in its place: order stays
    local heir = hand_over(L, x)
    Q.put_text(L, '@' .. id, heir.value)
    Q.put(L, 'redirected', 1)
    call('HSET', B .. 'where', heir.key, 'q' .. id .. ' ' .. L.lane)
    if L.f['n:' .. e.label] == key then Q.put(L, 'n:' .. e.label, heir.key) end
  else
    Q.remove_entries(L, { id })
    Q.waiting_left(L, e.label, 1)
    if L.f['n:' .. e.label] == key then Q.put(L, 'n:' .. e.label, '') end
  end
  L.head_known = false
end

local function cancel(key)
  local place, id, lane = string.match(call('HGET', B .. 'where', key) or '', '^(.)(%S*) (.*)$')
  if not place or place == 'x' then return false end
  local L = Q.find_lane(lane)
  local x = Q.state_of(L, key)
  if held[key] then
    x.c = 1
    Q.put_state(L, key, x)
    Q.note_cancelled(key)
    return false
  end
  if place == 'a' then
    if not absorbed_left(L, key, id) then return false end
  elseif place == 'd' then
    delayed_left(L, key, x)
  else
    queued_left(L, key, x, id)
  end
  x.m = nil
  Q.settle_key(L, key, 'K', x)
  Q.drop_state(L, key)
  return true
end

local taken, asked = {}, {}
for i = 4, #ARGV do
  local key = ARGV[i]
  if not asked[key] and cancel(key) then taken[#taken + 1] = key end
  asked[key] = true -- `where` still has it until `commit`
end
Q.commit()
return Q.answer(ARGV[3], cjson.encode(taken))
