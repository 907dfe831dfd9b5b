-- The end of every script that changes something: records are written, waiting claims are told.

local function save_lane(L)
  if not L.there then return end
  local set, drop = {}, {}
  for name in pairs(L.dirty) do
    local value = L.f[name]
    if value == nil then
      drop[#drop + 1] = name
    else
      set[#set + 1] = name
      set[#set + 1] = value
    end
  end
  many('HSET', key_of('at', L.lane), set, 2)
  many('HDEL', key_of('at', L.lane), drop)
end

local function save_ends()
  local any = false
  for lane, rows in pairs(ends) do
    many('HSET', key_of('out', lane), rows.rows, 2)
    for first = 1, #rows.keys, CHUNK do
      any = true
      local last = math.min(first + CHUNK - 1, #rows.keys)
      call('HDEL', B .. 'where', unpack(rows.keys, first, last))
      call('RPUSH', B .. 'settled', WALL .. ' ' .. (last - first + 1) .. ' ' .. lane .. ' ' ..
           table.concat(rows.keys, ' ', first, last))
      count('settled', last - first + 1)
    end
    if not find_lane(lane).there then call('EXPIRE', key_of('out', lane), KEPT_S) end
  end
  if any then trim_rows() end
end

local function publish()
  if not (woken_any or due_changed) then return end
  if call('ZCOUNT', B .. 'waiting', '(' .. exact(now), '+inf') == 0 then return end
  local labels = {}
  for label in pairs(woken) do labels[#labels + 1] = label end
  call('PUBLISH', B .. 'wake', cjson.encode({ labels = labels, due = due_changed }))
end

local function commit()
  for _, L in ipairs(lane_list) do refresh(L) end
  save_ends()
  for _, L in ipairs(lane_list) do save_lane(L) end
  local set, drop = {}, {}
  for name in pairs(counters_dirty) do
    if counters[name] == 0 then
      drop[#drop + 1] = name
    else
      set[#set + 1] = name
      set[#set + 1] = exact(counters[name])
    end
  end
  many('HSET', B .. 'counts', set, 2)
  many('HDEL', B .. 'counts', drop)
  publish()
end
