-- Who is served next: start-time fair queueing over users inside each class (Goyal, Vin & Cheng, 1996,
-- section 2), as `queues/fair.py` does it in memory. A user stands in `ready:<label>` once for all lanes
-- under that label, scored by the start tag it had when it came and, as a tie-break, by when that was; a tag
-- that has grown since is put right when the user comes to the top.
--
-- A user that holds as many batches as it may is set aside in `capped:<user>`, by label, and put back by
-- the end of a lease.

local TIE = 1e-10 -- a million arrivals stay below the smallest cost of a message

-- Start tags of users, by class: read once, written once by `commit`.
-- `C.passed`: the virtual time that a class has passed: tags up to it say nothing any more.
function Q.tag_of(class, user)
  local tags = C.tags[class]
  if not tags then
    tags = {}
    C.tags[class] = tags
    C.no_tags[class] = call('EXISTS', B .. 'flow:' .. class) == 0
  end
  local tag = tags[user]
  if not tag then
    tag = not C.no_tags[class] and tonumber(call('ZSCORE', B .. 'flow:' .. class, user)) or 0
    tags[user] = tag
  end
  return tag
end

function Q.save_tags()
  for class, time in pairs(C.passed) do
    call('ZREMRANGEBYSCORE', B .. 'flow:' .. class, '-inf', Q.exact(time))
  end
  for class, users in pairs(C.tags_dirty) do
    local rows = {}
    for user in pairs(users) do
      rows[#rows + 1] = Q.exact(C.tags[class][user])
      rows[#rows + 1] = user
    end
    Q.many('ZADD', B .. 'flow:' .. class, rows, 2)
  end
end

function Q.forget_tags(class)
  C.tags[class], C.tags_dirty[class] = nil, nil
  call('DEL', B .. 'flow:' .. class)
end

function Q.virtual_time(class) return Q.counter('vt:' .. class) end

-- How many batches a user holds, counted from the leases, and only where there is a cap.
function Q.busy(user)
  if not C.holding then
    C.holding = {}
    for _, text in ipairs(call('HVALS', B .. 'leases')) do
      local holder = string.match(cjson.decode(string.match(text, '^[^\n]*')).lane, '^[^/]*')
      C.holding[holder] = (C.holding[holder] or 0) + 1
    end
  end
  return C.holding[user] or 0
end

-- The user is ready under the label, in its place unless it stands there already.
function Q.stand(class, user, label)
  local tag = math.max(Q.tag_of(class, user), Q.virtual_time(class))
  local rows = C.standing[label]
  if not rows then
    rows = { 'NX' }
    C.standing[label] = rows
  end
  rows[#rows + 1] = Q.exact(tag + (Q.count('ticket', 1) % 1000000) * TIE)
  rows[#rows + 1] = user
  if #rows > CHUNK then Q.save_standing(label) end
end

-- Who came under the label is written together: before the label is read, and at the end.
function Q.save_standing(label)
  local rows = C.standing[label]
  if not rows then return end
  C.standing[label] = nil
  call('ZADD', B .. 'ready:' .. label, unpack(rows))
end

function Q.user_left(label, user)
  Q.save_standing(label)
  call('ZREM', B .. 'ready:' .. label, user)
end

function Q.add_ready(L, label)
  C.tops[label] = nil
  call('ZADD', B .. 'turn:' .. label .. ':' .. L.user, Q.count('ticket', 1), L.lane)
  if Q.counter('aside') > 0 and call('HEXISTS', B .. 'capped:' .. L.user, label) == 1 then return end
  Q.stand(L.class, L.user, label)
end

function Q.remove_ready(L, label)
  C.tops[label] = nil
  local turn = B .. 'turn:' .. label .. ':' .. L.user
  call('ZREM', turn, L.lane)
  if call('EXISTS', turn) == 0 then
    Q.user_left(label, L.user)
    if Q.counter('aside') > 0 then
      Q.count('aside', -call('HDEL', B .. 'capped:' .. L.user, label))
    end
  end
end

-- The user of `label` whose turn it is, as {score, user}; false when there is none.
function Q.top_of(class, label)
  local top = C.tops[label]
  if top == false then return false end
  -- the user may have been served under another label of the class since
  if top and Q.tag_of(class, top[2]) <= top[1] then return top end
  local ready = B .. 'ready:' .. label
  while true do
    Q.save_standing(label)
    local first = call('ZRANGE', ready, 0, 0, 'WITHSCORES')
    if not first[1] then
      C.tops[label] = false
      return false
    end
    local score, user = tonumber(first[2]), first[1]
    if USER_MAX > 0 and Q.busy(user) >= USER_MAX then
      Q.user_left(label, user)
      Q.count('aside', call('HSET', B .. 'capped:' .. user, label, class))
    elseif Q.tag_of(class, user) <= score then
      C.tops[label] = { score, user }
      return C.tops[label]
    else
      Q.user_left(label, user)
      Q.stand(class, user, label)
    end
  end
end

function Q.pop_ready(class, labels)
  local best, best_label
  for _, label in ipairs(labels) do
    local top = Q.top_of(class, label)
    if top and (not best or top[1] < best[1]) then best, best_label = top, label end
  end
  if not best then return nil end
  local user = best[2]
  if best[1] > Q.virtual_time(class) then
    Q.set_counter('vt:' .. class, best[1])
    C.passed[class] = best[1]
  end
  local turn = B .. 'turn:' .. best_label .. ':' .. user
  local lane = call('ZPOPMIN', turn)[1]
  if call('EXISTS', turn) == 0 then Q.user_left(best_label, user) end
  C.tops[best_label] = nil
  local L = Q.find_lane(lane)
  Q.put(L, 'rl', '')
  return L
end

-- A batch was leased, or a lease of `user` ended: who may run is looked at again.
function Q.now_busy()
  if USER_MAX > 0 then C.tops, C.holding = {}, nil end
end

function Q.less_busy(user)
  Q.now_busy()
  if Q.counter('aside') == 0 then return {} end
  local capped = B .. 'capped:' .. user
  local labels, flat = {}, call('HGETALL', capped)
  Q.count('aside', -#flat / 2)
  for i = 1, #flat, 2 do
    if call('EXISTS', B .. 'turn:' .. flat[i] .. ':' .. user) == 1 then
      Q.stand(flat[i + 1], user, flat[i])
      C.tops[flat[i]] = nil
      labels[#labels + 1] = flat[i]
    end
  end
  call('DEL', capped)
  return labels
end

function Q.charge(L, cost)
  if C.weighted == nil then C.weighted = call('EXISTS', B .. 'weight') == 1 end
  local weight = C.weighted and tonumber(call('HGET', B .. 'weight', L.user) or 1) or 1
  local tag = math.max(Q.tag_of(L.class, L.user), Q.virtual_time(L.class)) + cost / weight
  C.tags[L.class][L.user] = tag
  C.tags_dirty[L.class] = C.tags_dirty[L.class] or {}
  C.tags_dirty[L.class][L.user] = true
end
