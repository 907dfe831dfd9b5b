-- ARGV from 3: lanes ("1"), served_s. Reply: JSON.

-- The lag by label: for how long its first waiting message has been ready, or has blocked the lane. A few
-- messages at the head of a lane are looked at, one where all have one label.
local function lag(L, labels)
  local first, raws = labels == 1 and 1 or LAG_LOOK, {}
  if Q.num(L, 'back') > 0 then
    for _, id in ipairs(call('LRANGE', Q.key_of('back', L.lane), 0, first - 1)) do
      raws[#raws + 1] = call('XRANGE', L.stream, id, id)[1]
    end
  end
  local cur = L.f.cur
  for _, raw in ipairs(call('XRANGE', L.stream, cur and ('(' .. cur) or '-', '+', 'COUNT', first)) do
    raws[#raws + 1] = raw
  end
  local found = {}
  for _, raw in ipairs(raws) do
    local e = Q.entry_of(L, raw)
    if not found[e.label] then
      local x = L.f.x and Q.state_of(L, e.key) or {}
      local since = tonumber(x.b or x.y)
      found[e.label] = math.max(0, since and now - since or wall - tonumber(Q.whole(e).at))
    end
  end
  return found
end

local served = {}
for _, label in ipairs(call('ZRANGEBYSCORE', B .. 'served', Q.exact(now - tonumber(ARGV[4])), '+inf')) do
  served[label] = true
end
local running, by_lane = 0, {}
for _, text in ipairs(call('HVALS', B .. 'leases')) do
  local lease = cjson.decode(string.match(text, '^([^\n]*)'))
  for _, label in ipairs(lease.claimed) do served[label] = true end
  local own = by_lane[lease.lane] or {}
  by_lane[lease.lane] = own
  for label, number in pairs(lease.labels) do
    running = running + number
    own[label] = (own[label] or 0) + number
  end
end
local parked, heads = 0, call('HGETALL', B .. 'heads')
for i = 1, #heads, 2 do
  if not served[heads[i]] then parked = parked + tonumber(heads[i + 1]) end
end
local told = { queued = Q.counter('queued'), delayed = Q.counter('delayed'), running = running, parked = parked,
                 dead = call('ZCARD', B .. 'dead_order'), lanes = {}, times = {} }
if ARGV[3] == '1' then
  for _, lane in ipairs(call('SMEMBERS', B .. 'lanes')) do
    local L = Q.find_lane(lane)
    local q, d, labels = {}, {}, 0
    for name, value in pairs(L.f) do
      local kind = string.sub(name, 1, 2)
      if kind == 'q:' then
        q[string.sub(name, 3)] = tonumber(value)
        labels = labels + 1
      elseif kind == 'd:' then
        d[string.sub(name, 3)] = tonumber(value)
      end
    end
    told.lanes[#told.lanes + 1] = { lane = lane, q = q, d = d, r = by_lane[lane] or {},
                                        lag = labels > 0 and lag(L, labels) or {},
                                        parked = L.f.hl ~= nil and not served[L.f.hl] }
  end
end
for _, label in ipairs(call('SMEMBERS', B .. 'timed')) do
  told.times[label] = call('LRANGE', B .. 'times:' .. label, 0, 511)
end
return cjson.encode(told)
