-- ARGV from 3: number of batches, their epochs, then of each: the claim that leased it, fates, times (JSON: label -> text of
-- a sample), special messages, of each index, attempts, delay_s, error; followups, of each what `enter_followup`
-- takes. A fate is a letter: C done, X dead, R released, H retry at the head, A retry aside.
-- Reply: version, then of each batch "ok" and its answer, or "lost" and the answer to an earlier call or ""; an
-- answer is [what became of each message, letter by letter, errors by index]; K is cancelled. A batch that is lost
-- changes nothing for the others.
local leaving = {} -- lane -> ids of entries that are settled
local over = {} -- epochs that this call has ended

local function settled(b, i, key, letter, x)
  b.gone[#b.gone + 1] = b.ids[i]
  b.states[#b.states + 1] = key
  Q.settle_key(b.L, key, letter, x, b.started)
  return letter, ''
end

local function dead(b, e, x, attempts, error)
  x.a = attempts
  b.gone[#b.gone + 1] = e.id
  Q.bury(b.L, e, x, error, b.started)
  return 'X', error
end

local function again(b, e, x, fate, s)
  local L = b.L
  x.a, x.e, x.t = s.a, s.e, 1
  if fate == 'H' then
    local limit = Q.policy(e.label).block_s_max
    local blocked = x.b and now - tonumber(x.b)
    if blocked and blocked >= limit then
      local why = string.format('%s (it blocked its lane for %.0f s; at most %g)', s.e, blocked, limit)
      return dead(b, e, x, s.a, why)
    end
    x.b = x.b or Q.exact(now)
    x.u = Q.exact(now + math.min(s.delay, limit - (blocked or 0)))
    x.y = x.u
    Q.put_state(L, e.key, x)
    b.back[#b.back + 1] = { id = e.id, label = e.label }
    return 'H', s.e
  end
  Q.remove_entries(L, { e.id })
  Q.put_state(L, e.key, x)
  if s.delay > 0 then Q.delay(L, e, now + s.delay) else Q.queue_entry(L, e) end
  return 'A', s.e
end

local function settle(b, i, key, fate, x)
  if fate == 'C' then return settled(b, i, key, 'C', x) end
  local e = Q.read_entry(b.L, b.ids[i])
  if fate == 'X' then return dead(b, e, x, b.special[i].a, b.special[i].e) end
  if x.c then return settled(b, i, key, 'K', x) end
  x.s, x.y = b.started, Q.exact(now)
  if fate ~= 'R' then return again(b, e, x, fate, b.special[i]) end
  Q.put_state(b.L, key, x)
  b.back[#b.back + 1] = { id = e.id, label = e.label }
  return 'R', ''
end

local function one_by_one(b, keys, fates, texts)
  local letters, errors = {}, {}
  b.ids, b.gone, b.states, b.back = Q.ids_of(b.lease), {}, {}, {}
  for i, key in ipairs(keys) do
    local text = texts and texts[i]
    local letter, error = settle(b, i, key, string.sub(fates, i, i), text and cjson.decode(text) or {})
    letters[i] = letter
    if error ~= '' then errors[tostring(i)] = error end
  end
  if texts then Q.many('HDEL', Q.key_of('x', b.L.lane), b.states) end
  Q.hand_back(b.L, b.back)
  leaving[#leaving + 1] = { L = b.L, ids = b.gone }
  return table.concat(letters), errors
end

local reply, followups, times, finished, sweep = { Q.version() }, {}, {}, {}, {}

-- Settle the batch of `epoch`, whose lease is `text` (false: it is over), and which stands at ARGV[at]; returns where
-- the next one stands.
local function finish(at, epoch, text)
  local claim, fates, samples, specials = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local lease = text and Q.lease_of(epoch, text)
  local held = lease and lease.call == claim
  at = at + 4
  local special = {}
  for _ = 1, tonumber(specials) do
    special[tonumber(ARGV[at])] = { a = tonumber(ARGV[at + 1]), delay = tonumber(ARGV[at + 2]), e = ARGV[at + 3] }
    at = at + 4
  end
  local chained = tonumber(ARGV[at])
  if held then
    for i = 0, chained - 1 do followups[#followups + 1] = at + 1 + i * 8 end
  end
  at = at + 1 + chained * 8
  if not held then
    local by, answer = string.match(call('HGET', B .. 'finished', epoch) or '', '^([^\n]*)\n(.*)$')
    reply[#reply + 1] = 'lost'
    reply[#reply + 1] = by == claim and answer or ''
    return at
  end
  local L, keys = Q.find_lane(lease.lane), Q.keys_of(lease)
  over[epoch] = true
  Q.end_lease(epoch, lease, L)
  local texts = L.f.x and call('HMGET', Q.key_of('x', L.lane), unpack(keys))
  local letters, errors = fates, {}
  if texts or string.find(fates, '[^C]') then
    letters, errors = one_by_one({ L = L, lease = lease, started = lease.wall, special = special }, keys, fates, texts)
  else
    Q.all_done(L, keys, lease.wall)
    leaving[#leaving + 1] = { L = L, ids_of = lease }
  end
  for label, sample in pairs(cjson.decode(samples)) do
    times[label] = times[label] or {}
    table.insert(times[label], sample)
  end
  local said = cjson.encode({ letters, errors })
  finished[#finished + 1] = epoch
  finished[#finished + 1] = claim .. '\n' .. said
  if tonumber(epoch) % 64 == 0 then
    for i = 0, 63 do sweep[#sweep + 1] = tonumber(epoch) - 4096 - i end
  end
  reply[#reply + 1] = 'ok'
  reply[#reply + 1] = said
  return at
end

local batches = tonumber(ARGV[3])
local at = 4 + batches
local texts = call('HMGET', B .. 'leases', unpack(ARGV, 4, at - 1))
for i = 1, batches do
  local epoch = ARGV[3 + i]
  at = finish(at, epoch, not over[epoch] and texts[i])
end
for _, place in ipairs(followups) do Q.enter_followup(place) end
for _, one in ipairs(leaving) do -- else the stream goes as a whole
  if Q.num(one.L, 'h') > 0 then Q.remove_entries(one.L, one.ids or Q.ids_of(one.ids_of)) end
end
for label, samples in pairs(times) do
  local length = call('LPUSH', B .. 'times:' .. label, unpack(samples))
  if length == #samples or length > 600 then
    call('LTRIM', B .. 'times:' .. label, 0, 511)
    call('EXPIRE', B .. 'times:' .. label, KEPT_S)
    if call('SADD', B .. 'timed', label) == 1 then -- with each new label two others, by chance: theirs may have ended
      for _, other in ipairs(call('SRANDMEMBER', B .. 'timed', 2)) do
        if call('EXISTS', B .. 'times:' .. other) == 0 then call('SREM', B .. 'timed', other) end
      end
    end
  end
end
Q.many('HSET', B .. 'finished', finished, 2)
if #sweep > 0 then
  Q.many('HDEL', B .. 'finished', sweep)
  call('EXPIRE', B .. 'finished', REPLY_S)
end
Q.commit()
return reply
