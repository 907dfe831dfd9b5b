-- Who is served next: start-time fair queueing over users inside each class (Goyal, Vin & Cheng, 1996,
-- section 2), as `queues/fair.py` does it in memory. A user stands in `ready:<label>` once for all lanes
-- under that label, scored by the start tag it had when it came; a tag that has grown since is put right
-- when the user comes to the top. Members carry a ticket: equal tags are served in order of arrival.
--
-- A user that holds as many batches as it may is set aside in `capped:<user>`, by label, and put back by
-- the end of a lease.

Q.tops = {}

function Q.ticket() return string.format('%015d', Q.count('ticket', 1)) end

function Q.tag_of(class, user) return tonumber(call('ZSCORE', B .. 'flow:' .. class, user) or 0) end

function Q.virtual_time(class) return Q.counter('vt:' .. class) end

-- How many batches a user holds, counted from the leases, and only where there is a cap.
Q.holding = nil
function Q.busy(user)
  if not Q.holding then
    Q.holding = {}
    for _, text in ipairs(call('HVALS', B .. 'leases')) do
      local holder = string.match(cjson.decode(string.match(text, '^[^\n]*')).lane, '^[^/]*')
      Q.holding[holder] = (Q.holding[holder] or 0) + 1
    end
  end
  return Q.holding[user] or 0
end

function Q.stand(class, user, label)
  local member = Q.ticket() .. user
  call('ZADD', B .. 'ready:' .. label, math.max(Q.tag_of(class, user), Q.virtual_time(class)), member)
  call('HSET', B .. 'standing:' .. label, user, member)
end

function Q.user_left(label, user)
  local member = call('HGET', B .. 'standing:' .. label, user)
  if member then
    call('ZREM', B .. 'ready:' .. label, member)
    call('HDEL', B .. 'standing:' .. label, user)
  end
end

function Q.add_ready(L, label)
  Q.tops[label] = nil
  call('ZADD', B .. 'turn:' .. label .. ':' .. L.user, Q.count('ticket', 1), L.lane)
  if call('HEXISTS', B .. 'standing:' .. label, L.user) == 1 then return end
  if call('HEXISTS', B .. 'capped:' .. L.user, label) == 1 then return end
  Q.stand(L.class, L.user, label)
end

function Q.remove_ready(L, label)
  Q.tops[label] = nil
  local turn = B .. 'turn:' .. label .. ':' .. L.user
  call('ZREM', turn, L.lane)
  if call('EXISTS', turn) == 0 then
    Q.user_left(label, L.user)
    call('HDEL', B .. 'capped:' .. L.user, label)
  end
end

-- The user of `label` whose turn it is, as {tag, member}; false when there is none.
function Q.top_of(class, label)
  local top = Q.tops[label]
  if top == false then return false end
  -- the user may have been served under another label of the class since
  if top and Q.tag_of(class, string.sub(top[2], 16)) <= top[1] then return top end
  local ready = B .. 'ready:' .. label
  while true do
    local first = call('ZRANGE', ready, 0, 0, 'WITHSCORES')
    if not first[1] then
      Q.tops[label] = false
      return false
    end
    local score, user = tonumber(first[2]), string.sub(first[1], 16)
    local tag = Q.tag_of(class, user)
    if USER_MAX > 0 and Q.busy(user) >= USER_MAX then
      Q.user_left(label, user)
      call('HSET', B .. 'capped:' .. user, label, class)
    elseif tag <= score then
      Q.tops[label] = { score, first[1] }
      return Q.tops[label]
    else
      call('ZREM', ready, first[1])
      Q.stand(class, user, label)
    end
  end
end

function Q.before(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end

function Q.pop_ready(class, labels)
  local best, best_label
  for _, label in ipairs(labels) do
    local top = Q.top_of(class, label)
    if top and (not best or Q.before(top, best)) then best, best_label = top, label end
  end
  if not best then return nil end
  local user = string.sub(best[2], 16)
  if best[1] > Q.virtual_time(class) then
    Q.set_counter('vt:' .. class, best[1])
    call('ZREMRANGEBYSCORE', B .. 'flow:' .. class, '-inf', best[1]) -- tags that say nothing any more
  end
  local turn = B .. 'turn:' .. best_label .. ':' .. user
  local lane = call('ZPOPMIN', turn)[1]
  if call('EXISTS', turn) == 0 then Q.user_left(best_label, user) end
  Q.tops[best_label] = nil
  local L = Q.find_lane(lane)
  Q.put(L, 'rl', '')
  return L
end

-- A batch was leased, or a lease of `user` ended: who may run is looked at again.
function Q.now_busy()
  if USER_MAX > 0 then Q.tops, Q.holding = {}, nil end
end

function Q.less_busy(user)
  Q.now_busy()
  local capped = B .. 'capped:' .. user
  if call('EXISTS', capped) == 0 then return {} end
  local labels, flat = {}, call('HGETALL', capped)
  for i = 1, #flat, 2 do
    if call('EXISTS', B .. 'turn:' .. flat[i] .. ':' .. user) == 1 then
      Q.stand(flat[i + 1], user, flat[i])
      Q.tops[flat[i]] = nil
      labels[#labels + 1] = flat[i]
    end
  end
  call('DEL', capped)
  return labels
end

function Q.charge(L, cost)
  if Q.weighted == nil then Q.weighted = call('EXISTS', B .. 'weight') == 1 end
  local weight = Q.weighted and tonumber(call('HGET', B .. 'weight', L.user) or 1) or 1
  local tag = math.max(Q.tag_of(L.class, L.user), Q.virtual_time(L.class)) + cost / weight
  call('ZADD', B .. 'flow:' .. L.class, Q.exact(tag), L.user)
end
