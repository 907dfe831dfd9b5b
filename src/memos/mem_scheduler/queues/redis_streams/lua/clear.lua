-- ARGV from 3: call. All that waits or runs is cancelled, running leases are fenced, tokens and idempotency keys are forgotten; dead
-- letters stay. Reply: how many messages.
local before_this = Q.answered(ARGV[3])
if before_this then return before_this end
local cleared, cursor = 0, '0'
repeat
  local page = call('HSCAN', B .. 'where', cursor, 'COUNT', CHUNK)
  cursor = page[1]
  local keys_of_lane = {}
  for i = 1, #page[2], 2 do
    local place, runner, lane = string.match(page[2][i + 1], '^(.)(%S*) (.*)$')
    if place ~= 'x' and not (place == 'a' and Q.is_letter(runner)) then
      local keys = keys_of_lane[lane] or {}
      keys_of_lane[lane] = keys
      keys[#keys + 1] = page[2][i]
    end
  end
  for lane, keys in pairs(keys_of_lane) do
    local L = Q.find_lane(lane)
    for first = 1, #keys, CHUNK do
      local last = math.min(first + CHUNK - 1, #keys)
      local texts = call('HMGET', Q.key_of('x', lane), unpack(keys, first, last))
      for i = first, last do
        local text = texts[i - first + 1]
        local x = text and cjson.decode(text) or {}
        Q.ended(L, keys[i], 'K', x.s, x.a, x.e)
        cleared = cleared + 1
      end
    end
  end
until cursor == '0'
for _, lane in ipairs(call('SMEMBERS', B .. 'lanes')) do
  local L = Q.find_lane(lane)
  if L.f.rl then Q.remove_ready(L, L.f.rl) end
  if L.f.hc then C.heads[L.f.hc] = (C.heads[L.f.hc] or 0) - Q.num(L, 'hw') end
  Q.close_lane(L)
end
call('UNLINK', B .. 'leases', B .. 'leased', B .. 'delayed', B .. 'blocked', B .. 'seen', B .. 'seen_order',
     B .. 'idempotent', B .. 'idempotent_ends')
Q.now_busy()
for _, name in ipairs({ 'held', 'queued', 'delayed' }) do Q.set_counter(name, 0) end
Q.commit()
return Q.answer(ARGV[3], tostring(cleared))
