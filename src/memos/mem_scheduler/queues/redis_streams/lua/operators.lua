-- ARGV from 3: "instances" or "leases", limit. Reply: JSON.
local found, leases = {}, call('HGETALL', B .. 'leases')
if ARGV[3] == 'leases' then
  local epochs = {}
  for i = 1, #leases, 2 do epochs[#epochs + 1] = tonumber(leases[i]) end
  table.sort(epochs)
  for i = 1, math.min(#epochs, tonumber(ARGV[4])) do
    local lease = Q.lease_of(epochs[i])
    found[i] = { epoch = epochs[i], lane = lease.lane, slot = lease.slot, instance = Q.instance_of(lease),
                 labels = lease.labels, held = Q.exact(now - tonumber(lease.at)),
                 left = Q.exact(tonumber(call('ZSCORE', B .. 'leased', epochs[i])) - now) }
  end
  return cjson.encode(found)
end
local holding = {}
for i = 2, #leases, 2 do
  holding[Q.instance_of(cjson.decode(string.match(leases[i], '^([^\n]*)')))] = true
end
local seen = call('ZRANGE', B .. 'instances_seen', 0, -1, 'WITHSCORES')
for i = 1, #seen, 2 do
  local text = call('HGET', B .. 'instances', seen[i])
  if text and (holding[seen[i]] or tonumber(seen[i + 1]) >= wall - SEEN_S) then
    local one = cjson.decode(text)
    one.seen = seen[i + 1]
    found[#found + 1] = one
  end
end
return cjson.encode(found)
