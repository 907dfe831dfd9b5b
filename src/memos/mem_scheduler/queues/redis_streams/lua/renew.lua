-- ARGV from 3: presence as in `note_presence`, epochs. Reply: the epochs that are lost.
Q.note_presence(ARGV[3])
local gone = {}
for i = 4, #ARGV do
  local lease = Q.lease_of(ARGV[i])
  if lease then
    call('ZADD', B .. 'leased', Q.exact(now + Q.lease_s(lease.labels)), ARGV[i])
  else
    gone[#gone + 1] = ARGV[i]
  end
end
return gone
