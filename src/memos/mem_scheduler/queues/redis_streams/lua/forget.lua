-- ARGV from 3: call, user. Forgets what became of the user's settled messages, what errors of open ones say and
-- the idempotency keys. Reply: how many rows of settled messages went.
local before_this = Q.answered(ARGV[3])
if before_this then return before_this end
local user, forgotten = ARGV[4], 0

-- A row of `info` names its business task: {number, item, task, label} behind two numbers.
local function leave_task(lane, key, row)
  local task = row and cjson.decode(string.match(row, '^%S+ %S+ (.*)$'))[3]
  if not task or task == '' then return end
  local escaped = string.gsub(task, '[^%w_.~-]', function(c) return string.format('%%%02X', string.byte(c)) end)
  call('SREM', B .. 'task:' .. user .. '/' .. escaped, key .. ' ' .. lane)
end

for _, lane in ipairs(call('ZRANGEBYLEX', B .. 'rows', '[' .. user .. '/', '(' .. user .. '0')) do
  local info = Q.key_of('info', lane)
  local rows, gone = call('HGETALL', info), {}
  for i = 1, #rows, 2 do
    if string.sub(rows[i], 1, 1) ~= '=' and call('HEXISTS', B .. 'where', rows[i]) == 0 then
      gone[#gone + 1] = rows[i]
      gone[#gone + 1] = '=' .. rows[i]
      leave_task(lane, rows[i], rows[i + 1])
      forgotten = forgotten + 1
    end
  end
  Q.many('HDEL', info, gone)
  if call('EXISTS', info) == 0 then call('ZREM', B .. 'rows', lane) end
  local states = call('HGETALL', Q.key_of('x', lane))
  for i = 1, #states, 2 do
    local x = cjson.decode(states[i + 1])
    if x.e then
      x.e = ''
      call('HSET', Q.key_of('x', lane), states[i], cjson.encode(x))
    end
  end
end

-- The order in which settled rows leave: "<time> <number> <lane> <keys>".
local list = B .. 'settled'
local items, kept, left = call('LRANGE', list, 0, -1), {}, 0
for _, item in ipairs(items) do
  local number, owner = string.match(item, '^%S+ (%d+) ([^/]*)/')
  if owner == user then left = left + tonumber(number) else kept[#kept + 1] = item end
end
if left > 0 then
  call('DEL', list)
  Q.many('RPUSH', list, kept)
  Q.count('settled', -left)
end

-- Answers that are kept for a client that lost them may say why a message failed; whose it was they do not say.
local answers = call('HGETALL', B .. 'finished')
for i = 1, #answers, 2 do
  local by, said = string.match(answers[i + 1], '^([^\n]*)\n(.*)$')
  local told = cjson.decode(said)
  if next(told[2]) then
    for at in pairs(told[2]) do told[2][at] = '' end
    call('HSET', B .. 'finished', answers[i], by .. '\n' .. cjson.encode(told))
  end
end

local cursor = '0'
repeat
  local page = call('HSCAN', B .. 'idempotent', cursor, 'MATCH', user .. '/*', 'COUNT', CHUNK)
  cursor = page[1]
  local scopes = {}
  for i = 1, #page[2], 2 do scopes[#scopes + 1] = page[2][i] end
  Q.many('HDEL', B .. 'idempotent', scopes)
  Q.many('ZREM', B .. 'idempotent_ends', scopes)
until cursor == '0'
Q.commit()
return Q.answer(ARGV[3], tostring(forgotten))
