-- What all scripts share, first part: the time, policies, counters. The parts stand before each script in
-- the order base, lanes, fair, settle, leases, enter, commit.
--
-- The server keeps all of it, made once, where it has functions; else it is made anew at every call. So nothing
-- of a call may outlive it: what one call knows stands in `C`, which `begin` makes anew.
--
-- The key of a call is the base of all keys ("<prefix>:{ms:0}:"); ARGV[1] the time: "" for the server's own clock,
-- or "<monotonic> <wall>" where a test drives it. ARGV[2] is how many batches of one user may be leased
-- at a time (0: no cap). A lane is "<user>/<cube>/<class>", percent-encoded.

local Q = {} -- what the parts share: a closure that captures one table is made ten times as fast as one that
-- captures ten locals
local C, ARGV, call, B, USER_MAX, now, wall, WALL
local CHUNK = 4000 -- arguments of one command; Lua's stack holds about 8,000

function Q.begin(base, arguments)
  C = {
    policies = {}, counters_dirty = {}, lanes = {}, lane_list = {}, heads = {}, ends = {},
    tops = {}, tags = {}, tags_dirty = {}, passed = {}, woken = {}, woken_any = false, due_changed = false,
    no_tags = {}, standing = {}, over = {},
  }
  ARGV, call, B, USER_MAX = arguments, redis.call, base, tonumber(arguments[2])
  if ARGV[1] == '' then
    local t = call('TIME')
    now = tonumber(t[1]) + tonumber(t[2]) / 1000000
    wall = now
  else
    local a, b = string.match(ARGV[1], '^(%S+) (%S+)$')
    now, wall = tonumber(a), tonumber(b)
  end
  WALL = string.format('%.6f', wall)
end

local KEPT_S = 604800 -- how long a settled message's status row is kept
local REPLY_S = 3600 -- how long the answer of a call is kept for a client that lost it
local ABSORBED_MAX = 64 -- messages that one message may run for

-- A float as text that reads back exactly.
function Q.exact(number) return string.format('%.17g', number) end

-- One command with many arguments, in chunks. `step` keeps groups of arguments together.
function Q.many(command, key, args, step)
  local size = CHUNK - CHUNK % (step or 1)
  for first = 1, #args, size do
    call(command, key, unpack(args, first, math.min(first + size - 1, #args)))
  end
end

function Q.policy(label)
  local found = C.policies[label]
  if not found then
    local text = call('HGET', B .. 'policy', label)
    found = text and cjson.decode(text) or default_policy(label)
    C.policies[label] = found
  end
  return found
end

function Q.slots(label)
  local p = Q.policy(label)
  return p.ordered and 1 or p.concurrency
end

-- Counters of the whole queue: read once, written once by `commit`; those that nearly every call needs in
-- one go.
Q.OFTEN = { 'held', 'queued', 'seq', 'ticket', 'picks', 'settled', 'policy_version', 'aside', 'epoch' }
function Q.counter(name)
  if not C.counters then
    C.counters = {}
    for i, value in ipairs(call('HMGET', B .. 'counts', unpack(Q.OFTEN))) do
      C.counters[Q.OFTEN[i]] = tonumber(value or 0)
    end
  end
  local value = C.counters[name]
  if value == nil then
    value = tonumber(call('HGET', B .. 'counts', name) or 0)
    C.counters[name] = value
  end
  return value
end

function Q.version() return Q.counter('policy_version') end

function Q.set_counter(name, value)
  if not C.counters then Q.counter('held') end
  C.counters[name] = value
  C.counters_dirty[name] = true
end

function Q.count(name, by)
  local value = Q.counter(name) + by
  Q.set_counter(name, value)
  return value
end

function Q.add_hash(key, field, by)
  if by ~= 0 and call('HINCRBY', key, field, by) == 0 then call('HDEL', key, field) end
end

-- What this call answered before, when its reply was lost and the client asks again.
function Q.answered(caller) return call('GET', B .. 'reply:' .. caller) end
function Q.answer(caller, text)
  call('SET', B .. 'reply:' .. caller, text, 'EX', REPLY_S)
  return text
end
