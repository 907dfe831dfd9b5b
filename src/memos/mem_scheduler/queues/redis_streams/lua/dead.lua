-- ARGV from 3: call, "retry", "purge" or "edit", keys ("edit": key, message). Without keys, retry and purge mean
-- all letters. Reply: how many.
local before_this = Q.answered(ARGV[3])
if before_this then return before_this end

local function edit(key, message)
  local text = call('HGET', B .. 'dead', key)
  if not text then return 0 end
  local d = cjson.decode(text)
  d.message = message
  call('HSET', B .. 'dead', key, cjson.encode(d))
  return 1
end

-- Back to the end of its lane with fresh budgets; what it runs for comes with it.
local function requeue(key, text)
  local d = cjson.decode(text)
  call('HDEL', B .. 'dead', key)
  call('ZREM', B .. 'dead_order', key)
  local L, m = Q.open_lane(d.lane), d.m or {}
  local ends = { '=' .. key }
  for _, one in ipairs(m) do ends[#ends + 1] = '=' .. one end
  call('HDEL', Q.key_of('info', d.lane), unpack(ends))
  Q.put_state(L, key, { m = d.m, y = Q.exact(now) })
  for _, one in ipairs(m) do
    Q.put_state(L, one, { i = key })
    local payload = call('HGET', Q.key_of('absorbed', d.lane), one)
    call('HSET', Q.key_of('aside', d.lane), one, payload)
    call('HDEL', Q.key_of('absorbed', d.lane), one)
  end
  Q.bump(L, 'h', 1 + #m)
  Q.count('held', 1 + #m)
  Q.queue_entry(L, { key = key, label = d.label, value = Q.pack(key, d.label, d.first, d.parent, d.message) })
end

local function each(keys)
  local number = 0
  for _, key in ipairs(keys) do
    local text = call('HGET', B .. 'dead', key)
    if text then
      number = number + 1
      if ARGV[4] == 'purge' then Q.forget_letter(key) else requeue(key, text) end
    end
  end
  return number
end

local number
if ARGV[4] == 'edit' then
  number = edit(ARGV[5], ARGV[6])
elseif ARGV[5] then
  local keys = {}
  for i = 5, #ARGV do keys[#keys + 1] = ARGV[i] end
  number = each(keys)
else
  number = each(call('ZRANGE', B .. 'dead_order', 0, -1))
end
Q.commit()
return Q.answer(ARGV[3], tostring(number))
