-- ARGV from 3: epoch, the claim that leased it, fates, times (JSON: label -> text of a sample), special messages,
-- then of each: index, attempts, delay_s, error; then followups as in `enter_followup`. A fate is a letter:
-- C done, X dead, R released, H retry at the head, A retry aside.
-- Reply: {"ok", version, answer} or {"lost", version, the answer to an earlier call or ""}; an answer is
-- [what became of each message, letter by letter, errors by index]; K is cancelled.
local epoch, claim, fates = ARGV[3], ARGV[4], ARGV[5]
local lease = Q.lease_of(epoch)
if not lease or lease.call ~= claim then
  local by, answer = string.match(call('HGET', B .. 'finished', epoch) or '', '^([^\n]*)\n(.*)$')
  return { 'lost', Q.version(), by == claim and answer or '' }
end
local L = Q.find_lane(lease.lane)
local special, at = {}, 8
for _ = 1, tonumber(ARGV[7]) do
  special[tonumber(ARGV[at])] = { a = tonumber(ARGV[at + 1]), delay = tonumber(ARGV[at + 2]), e = ARGV[at + 3] }
  at = at + 4
end
Q.end_lease(epoch, lease, L)
local started = lease.wall
local texts = L.f.x and call('HMGET', Q.key_of('x', L.lane), unpack(lease.keys))
local gone, states, back, letters, errors = {}, {}, {}, {}, {}

local function settled(i, key, letter, x)
  gone[#gone + 1] = lease.ids[i]
  states[#states + 1] = key
  Q.settle_key(L, key, letter, x, started)
  return letter, ''
end

local function dead(e, x, attempts, error)
  x.a = attempts
  gone[#gone + 1] = e.id
  Q.bury(L, e, x, error, started)
  return 'X', error
end

local function again(e, x, fate, s)
  x.a, x.e, x.t = s.a, s.e, 1
  if fate == 'H' then
    local limit = Q.policy(e.label).block_s_max
    local blocked = x.b and now - tonumber(x.b)
    if blocked and blocked >= limit then
      return dead(e, x, s.a, string.format('%s (it blocked its lane for %.0f s; at most %g)', s.e, blocked, limit))
    end
    x.b = x.b or Q.exact(now)
    x.u = Q.exact(now + math.min(s.delay, limit - (blocked or 0)))
    x.y = x.u
    Q.put_state(L, e.key, x)
    back[#back + 1] = { id = e.id, label = e.label }
    return 'H', s.e
  end
  Q.remove_entries(L, { e.id })
  Q.put_state(L, e.key, x)
  if s.delay > 0 then Q.delay(L, e, now + s.delay) else Q.queue_entry(L, e) end
  return 'A', s.e
end

local function settle(i, key, fate, x)
  if fate == 'C' then return settled(i, key, 'C', x) end
  local e = Q.read_entry(L, lease.ids[i])
  if fate == 'X' then return dead(e, x, special[i].a, special[i].e) end
  if x.c then return settled(i, key, 'K', x) end
  x.s, x.y = started, Q.exact(now)
  if fate ~= 'R' then return again(e, x, fate, special[i]) end
  Q.put_state(L, key, x)
  back[#back + 1] = { id = e.id, label = e.label }
  return 'R', ''
end

if not texts and not string.find(fates, '[^C]') then
  gone = lease.ids
  Q.all_done(L, lease.keys, started)
  letters = { fates }
else
  for i, key in ipairs(lease.keys) do
    local text = texts and texts[i]
    local letter, error = settle(i, key, string.sub(fates, i, i), text and cjson.decode(text) or {})
    letters[i] = letter
    if error ~= '' then errors[tostring(i)] = error end
  end
end
if texts then Q.many('HDEL', Q.key_of('x', L.lane), states) end
Q.hand_back(L, back)
while ARGV[at] do at = Q.enter_followup(at) end
if Q.num(L, 'h') > 0 then Q.remove_entries(L, gone) end -- else the stream goes as a whole
for label, sample in pairs(cjson.decode(ARGV[6])) do
  local length = call('LPUSH', B .. 'times:' .. label, sample)
  if length == 1 or length > 600 then
    call('LTRIM', B .. 'times:' .. label, 0, 511)
    call('EXPIRE', B .. 'times:' .. label, KEPT_S)
    call('SADD', B .. 'timed', label)
  end
end
local said = cjson.encode({ table.concat(letters), errors })
call('HSET', B .. 'finished', epoch, claim .. '\n' .. said)
if tonumber(epoch) % 64 == 0 then
  local old = {}
  for i = 0, 63 do old[i + 1] = tonumber(epoch) - 4096 - i end
  Q.many('HDEL', B .. 'finished', old)
  call('EXPIRE', B .. 'finished', REPLY_S)
end
Q.commit()
return { 'ok', Q.version(), said }
