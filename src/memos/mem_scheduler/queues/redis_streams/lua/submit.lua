-- ARGV from 3: options (JSON), lanes, then per lane: lane, count, then key, label, row, message of each message;
-- then followups as in `enter_followup`. Options: token, scope and used_for (an idempotency key), answer, tasks
-- (user/task -> members), inside, coalesce, delay_s, ask (only whether it would be refused) and the bounds.
-- Reply: {"ok", version}, {"known", version, answer, used_for}, {"full", version, lane or "", held} or
-- {"keys", version}: too many idempotency keys.
local o = cjson.decode(ARGV[3])
if o.token then
  local known = call('HGET', B .. 'seen', o.token)
  if known then
    call('ZADD', B .. 'seen_order', Q.count('ticket', 1), o.token)
    Q.commit()
    return { 'known', Q.version(), known, '' }
  end
end
if o.scope then
  local over = call('ZRANGEBYSCORE', B .. 'idempotent_ends', '-inf', Q.exact(now), 'LIMIT', 0, 1000)
  Q.many('HDEL', B .. 'idempotent', over)
  Q.many('ZREM', B .. 'idempotent_ends', over)
  local known = call('HGET', B .. 'idempotent', o.scope)
  if known then
    local used_for, said = string.match(known, '^(%S+) (.*)$')
    return { 'known', Q.version(), said, used_for }
  end
  if call('HLEN', B .. 'idempotent') >= o.keys_max then return { 'keys', Q.version() } end
end
local groups, at = {}, 5
for _ = 1, tonumber(ARGV[4]) do
  local g = { lane = ARGV[at], n = tonumber(ARGV[at + 1]), at = at + 2 }
  groups[#groups + 1] = g
  at = g.at + g.n * 4
end
-- After a lost reply the client sends the same keys again.
if groups[1] and call('HEXISTS', Q.key_of('info', groups[1].lane), ARGV[groups[1].at]) == 1 then
  return { 'ok', Q.version() }
end

-- Whether every message joins a waiting one, so that no more wait than before.
local function all_join()
  for _, g in ipairs(groups) do
    local L, numbers = Q.find_lane(g.lane), {}
    for i = g.at, g.at + g.n * 4 - 1, 4 do numbers[ARGV[i + 1]] = (numbers[ARGV[i + 1]] or 0) + 1 end
    for label, number in pairs(numbers) do
      local older = Q.policy(label).coalesce and L.f['n:' .. label]
      if not older or #(Q.state_of(L, older).m or {}) + number > ABSORBED_MAX then return false end
    end
  end
  return true
end

local function refusal()
  local total = 0
  for _, g in ipairs(groups) do total = total + g.n end
  if Q.counter('held') + total > o.messages_max then return { 'full', Q.version(), '', Q.counter('held') } end
  for _, g in ipairs(groups) do
    local held = Q.num(Q.find_lane(g.lane), 'h')
    if held + g.n > o.lane_max then return { 'full', Q.version(), g.lane, held } end
  end
end

local refused = not o.inside and refusal()
if refused and not (o.coalesce and all_join()) then return refused end
if o.ask then return { 'ok', Q.version() } end
local wheres = {}
for _, g in ipairs(groups) do
  local L, new = Q.open_lane(g.lane), Q.new_arrivals(wheres)
  Q.enter_all(L, new, g.at, g.n, o.delay_s)
  Q.arrived(L, new)
end
Q.many('HSET', B .. 'where', wheres, 2)
for task, members in pairs(o.tasks or {}) do Q.of_task(task, members) end
while ARGV[at] do at = Q.enter_followup(at) end
if o.token then
  call('HSET', B .. 'seen', o.token, o.answer)
  call('ZADD', B .. 'seen_order', Q.count('ticket', 1), o.token)
  while call('ZCARD', B .. 'seen_order') > TOKENS_MAX do
    call('HDEL', B .. 'seen', call('ZPOPMIN', B .. 'seen_order')[1])
  end
end
if o.scope then
  call('HSET', B .. 'idempotent', o.scope, o.used_for .. ' ' .. o.answer)
  call('ZADD', B .. 'idempotent_ends', Q.exact(now + o.ttl_s), o.scope)
end
Q.commit()
return { 'ok', Q.version() }
