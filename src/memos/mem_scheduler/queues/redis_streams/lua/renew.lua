-- ARGV from 3: presence as in `note_presence`, then of each lease its epoch and the claim that took it. Reply: "1"
-- of each that is held, "0" of each that is lost.
Q.note_presence(ARGV[3])
local held = {}
for i = 4, #ARGV, 2 do
  local lease = Q.lease_of(ARGV[i])
  if lease and lease.call == ARGV[i + 1] then
    call('ZADD', B .. 'leased', Q.exact(now + Q.lease_s(lease.labels)), ARGV[i])
    held[#held + 1] = '1'
  else
    held[#held + 1] = '0'
  end
end
return held
