-- ARGV from 3: keys. Reply: {key, lane, at, message, parent, attempts, recoveries, payloads (JSON)} of each that
-- is live and no dead letter.
local found = {}
for i = 3, #ARGV do
  local key = ARGV[i]
  local place, id, lane = string.match(call('HGET', B .. 'where', key) or '', '^(.)(%S*) (.*)$')
  if place and place ~= 'x' then
    local L, e = find_lane(lane), nil
    if place == 'q' then
      e = read_entry(L, id)
    else
      local text = call('HGET', key_of('aside', lane), key)
      e = text and cjson.decode(text)
    end
    if e then
      local x = state_of(L, key)
      found[#found + 1] = { key, lane, e.at, e.message, e.parent or '', x.a or 0, x.r or 0,
                              x.m and cjson.encode(payloads(L, x)) or '' }
    end
  end
end
return found
