-- Who is served next: start-time fair queueing over users inside each class (Goyal, Vin & Cheng, 1996,
-- section 2), as `queues/fair.py` does it in memory. A user stands in `ready:<label>` once for all lanes
-- under that label, scored by the start tag it had when it came; a tag that has grown since is put right
-- when the user comes to the top. Members carry a ticket: equal tags are served in order of arrival.
--
-- A user that holds as many batches as it may is set aside in `capped:<user>`, by label, and put back by
-- the end of a lease.

local tops = {}

local function ticket() return string.format('%015d', count('ticket', 1)) end

local function tag_of(class, user) return tonumber(call('ZSCORE', B .. 'flow:' .. class, user) or 0) end

local function virtual_time(class) return counter('vt:' .. class) end

local function busy(user) return tonumber(call('HGET', B .. 'busy', user) or 0) end

local function stand(class, user, label)
  local member = ticket() .. user
  call('ZADD', B .. 'ready:' .. label, math.max(tag_of(class, user), virtual_time(class)), member)
  call('HSET', B .. 'standing:' .. label, user, member)
end

local function user_left(label, user)
  local member = call('HGET', B .. 'standing:' .. label, user)
  if member then
    call('ZREM', B .. 'ready:' .. label, member)
    call('HDEL', B .. 'standing:' .. label, user)
  end
end

local function add_ready(L, label)
  tops[label] = nil
  call('ZADD', B .. 'turn:' .. label .. ':' .. L.user, count('ticket', 1), L.lane)
  if call('HEXISTS', B .. 'standing:' .. label, L.user) == 1 then return end
  if call('HEXISTS', B .. 'capped:' .. L.user, label) == 1 then return end
  stand(L.class, L.user, label)
end

local function remove_ready(L, label)
  tops[label] = nil
  local turn = B .. 'turn:' .. label .. ':' .. L.user
  call('ZREM', turn, L.lane)
  if call('EXISTS', turn) == 0 then
    user_left(label, L.user)
    call('HDEL', B .. 'capped:' .. L.user, label)
  end
end

-- The user of `label` whose turn it is, as {tag, member}; false when there is none.
local function top_of(class, label)
  local top = tops[label]
  if top == false then return false end
  -- the user may have been served under another label of the class since
  if top and tag_of(class, string.sub(top[2], 16)) <= top[1] then return top end
  local ready = B .. 'ready:' .. label
  while true do
    local first = call('ZRANGE', ready, 0, 0, 'WITHSCORES')
    if not first[1] then
      tops[label] = false
      return false
    end
    local score, user = tonumber(first[2]), string.sub(first[1], 16)
    local tag = tag_of(class, user)
    if USER_MAX > 0 and busy(user) >= USER_MAX then
      user_left(label, user)
      call('HSET', B .. 'capped:' .. user, label, class)
    elseif tag <= score then
      tops[label] = { score, first[1] }
      return tops[label]
    else
      call('ZREM', ready, first[1])
      stand(class, user, label)
    end
  end
end

local function before(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end

local function pop_ready(class, labels)
  local best, best_label
  for _, label in ipairs(labels) do
    local top = top_of(class, label)
    if top and (not best or before(top, best)) then best, best_label = top, label end
  end
  if not best then return nil end
  local user = string.sub(best[2], 16)
  if best[1] > virtual_time(class) then
    set_counter('vt:' .. class, best[1])
    call('ZREMRANGEBYSCORE', B .. 'flow:' .. class, '-inf', best[1]) -- tags that say nothing any more
  end
  local turn = B .. 'turn:' .. best_label .. ':' .. user
  local lane = call('ZPOPMIN', turn)[1]
  if call('EXISTS', turn) == 0 then user_left(best_label, user) end
  tops[best_label] = nil
  local L = find_lane(lane)
  put(L, 'rl', '')
  return L
end

-- A batch of `user` is leased, or its lease ends.
local function now_busy(user)
  call('HINCRBY', B .. 'busy', user, 1)
  if USER_MAX > 0 then tops = {} end
end

local function less_busy(user)
  add_hash(B .. 'busy', user, -1)
  local capped = B .. 'capped:' .. user
  if call('EXISTS', capped) == 0 then return {} end
  local labels, flat = {}, call('HGETALL', capped)
  for i = 1, #flat, 2 do
    if call('EXISTS', B .. 'turn:' .. flat[i] .. ':' .. user) == 1 then
      stand(flat[i + 1], user, flat[i])
      tops[flat[i]] = nil
      labels[#labels + 1] = flat[i]
    end
  end
  call('DEL', capped)
  return labels
end

local function charge(L, cost)
  local weight = tonumber(call('HGET', B .. 'weight', L.user) or 1)
  local tag = math.max(tag_of(L.class, L.user), virtual_time(L.class)) + cost / weight
  call('ZADD', B .. 'flow:' .. L.class, exact(tag), L.user)
end
