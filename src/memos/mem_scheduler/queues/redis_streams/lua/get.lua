-- ARGV from 3: keys. Reply: {lane, text, attempts, recoveries, payloads (JSON)} of each that is live and no dead letter.
local found = {}
for i = 3, #ARGV do
  local key = ARGV[i]
  local place, id, lane = string.match(call('HGET', B .. 'where', key) or '', '^(.)(%S*) (.*)$')
  if place and place ~= 'x' then
    local L, e = Q.find_lane(lane), nil
    if place == 'q' then
      e = Q.read_entry(L, id)
    else
      local text = call('HGET', Q.key_of('aside', lane), key)
      e = text and Q.unpacked(text)
    end
    if e then
      local x = Q.state_of(L, key)
      found[#found + 1] = { lane, e.value, x.a or 0, x.r or 0, x.m and cjson.encode(Q.payloads(L, x)) or '' }
    end
  end
end
return found
