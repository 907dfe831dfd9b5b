-- ARGV from 3: number of lanes, then of each: lane, number of keys (0: all rows), keys. What says how messages stand,
-- in one step; a MULTI would be refused by a full server. Reply: the leases, then of each lane its rows (flat: key or
-- "=" and key, row) and its exceptional states.
local function rows(lane, first, number)
  local name = Q.key_of('info', lane)
  if number == 0 then return call('HGETALL', name) end
  local flat = {}
  for from = first, first + number - 1, CHUNK / 2 do
    local to, names = math.min(from + CHUNK / 2 - 1, first + number - 1), {}
    for i = from, to do
      names[#names + 1] = ARGV[i]
      names[#names + 1] = '=' .. ARGV[i]
    end
    for i, text in ipairs(call('HMGET', name, unpack(names))) do
      if text then
        flat[#flat + 1] = names[i]
        flat[#flat + 1] = text
      end
    end
  end
  return flat
end

local reply, at = { call('HVALS', B .. 'leases') }, 4
for _ = 1, tonumber(ARGV[3]) do
  local lane, number = ARGV[at], tonumber(ARGV[at + 1])
  reply[#reply + 1] = rows(lane, at + 2, number)
  reply[#reply + 1] = call('HGETALL', Q.key_of('x', lane))
  at = at + 2 + number
end
return reply
