-- What all scripts share, first part: the time, policies, counters. The parts stand before each script in
-- the order base, lanes, fair, settle, leases, enter, commit.
--
-- KEYS[1] is the base of all keys ("<prefix>:{ms:0}:"); ARGV[1] the time: "" for the server's own clock,
-- or "<monotonic> <wall>" where a test drives it. ARGV[2] is how many batches of one user may be leased
-- at a time (0: no cap). A lane is "<user>/<cube>/<class>", percent-encoded.

local call = redis.call
local B = KEYS[1]
local USER_MAX = tonumber(ARGV[2])
local CHUNK = 4000 -- arguments of one command; Lua's stack holds about 8,000

local now, wall
if ARGV[1] == '' then
  local t = call('TIME')
  now = tonumber(t[1]) + tonumber(t[2]) / 1000000
  wall = now
else
  local a, b = string.match(ARGV[1], '^(%S+) (%S+)$')
  now, wall = tonumber(a), tonumber(b)
end
local WALL = string.format('%.6f', wall)

local KEPT_S = 604800 -- how long a settled message's status row is kept
local REPLY_S = 3600 -- how long the answer of a call is kept for a client that lost it
local ABSORBED_MAX = 64 -- messages that one message may run for

-- A float as text that reads back exactly.
local function exact(number) return string.format('%.17g', number) end

-- One command with many arguments, in chunks. `step` keeps groups of arguments together.
local function many(command, key, args, step)
  local size = CHUNK - CHUNK % (step or 1)
  for first = 1, #args, size do
    call(command, key, unpack(args, first, math.min(first + size - 1, #args)))
  end
end

local policies = {}
local function policy(label)
  local found = policies[label]
  if not found then
    local text = call('HGET', B .. 'policy', label)
    found = text and cjson.decode(text) or BUILT_IN[label] or UNORDERED
    policies[label] = found
  end
  return found
end

local function slots(label)
  local p = policy(label)
  return p.ordered and 1 or p.concurrency
end

local function version() return tonumber(call('GET', B .. 'policy_version') or 0) end

-- Counters of the whole queue: read once, written once by `commit`.
local counters, counters_dirty = {}, {}
local function counter(name)
  local value = counters[name]
  if value == nil then
    value = tonumber(call('HGET', B .. 'counts', name) or 0)
    counters[name] = value
  end
  return value
end

local function set_counter(name, value)
  counters[name] = value
  counters_dirty[name] = true
end

local function count(name, by)
  local value = counter(name) + by
  set_counter(name, value)
  return value
end

local function add_hash(key, field, by)
  if by ~= 0 and call('HINCRBY', key, field, by) == 0 then call('HDEL', key, field) end
end

-- What this call answered before, when its reply was lost and the client asks again.
local function answered(caller) return call('GET', B .. 'reply:' .. caller) end
local function answer(caller, text)
  call('SET', B .. 'reply:' .. caller, text, 'EX', REPLY_S)
  return text
end
