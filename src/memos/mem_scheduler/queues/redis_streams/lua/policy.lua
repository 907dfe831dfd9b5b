-- ARGV from 3: label, policy (JSON), class (percent-encoded). Held leases take the new length at once, lanes of
-- the class its slots. Reply: the version. What stands already changes nothing: a program that says it at
-- every start must not prolong, start after start, the leases of those that died.
local label = ARGV[3]
if call('HGET', B .. 'policy', label) == ARGV[4] then return Q.version() end
call('HSET', B .. 'policy', label, ARGV[4])
Q.count('policy_version', 1)
for _, epoch in ipairs(call('HKEYS', B .. 'leases')) do
  local lease = Q.lease_of(epoch)
  if lease.labels[label] then
    call('ZADD', B .. 'leased', Q.exact(now + Q.lease_s(lease.labels)), epoch)
    C.due_changed = true
  end
end
for _, lane in ipairs(call('SMEMBERS', B .. 'lanes')) do
  if string.match(lane, '([^/]*)$') == ARGV[5] then Q.find_lane(lane) end
end
Q.commit()
return Q.version()
