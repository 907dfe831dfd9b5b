-- The end of every script that changes something: records are written, waiting claims are told.

function Q.save_lane(L)
  if not L.there then return end
  local set, at = {}, 0
  for name in pairs(L.dirty) do
    set[at + 1] = name
    set[at + 2] = L.f[name] or ''
    at = at + 2
  end
  Q.many('HSET', Q.key_of('at', L.lane), set, 2)
end

function Q.save_ends()
  local gone, items = {}, {}
  for lane, rows in pairs(C.ends) do
    Q.many('HSET', Q.key_of('info', lane), rows.rows, 2)
    for first = 1, #rows.keys, CHUNK do
      local last = math.min(first + CHUNK - 1, #rows.keys)
      for i = first, last do gone[#gone + 1] = rows.keys[i] end
      items[#items + 1] = WALL .. ' ' .. (last - first + 1) .. ' ' .. lane .. ' ' ..
                          table.concat(rows.keys, ' ', first, last)
      Q.count('settled', last - first + 1)
    end
    if not Q.find_lane(lane).there then call('EXPIRE', Q.key_of('info', lane), KEPT_S) end
  end
  if #items == 0 then return end
  Q.many('HDEL', B .. 'where', gone)
  Q.many('RPUSH', B .. 'settled', items)
  Q.trim_rows()
end

function Q.publish()
  if not (C.woken_any or C.due_changed) then return end
  if call('ZCOUNT', B .. 'waiting', '(' .. Q.exact(now), '+inf') == 0 then return end
  local labels = {}
  for label in pairs(C.woken) do labels[#labels + 1] = label end
  call(PUBLISH, B .. 'wake', cjson.encode({ labels = labels, due = C.due_changed }))
end

function Q.commit()
  Q.drop_leases()
  for _, L in ipairs(C.lane_list) do Q.refresh(L) end
  Q.save_ends()
  Q.save_heads()
  Q.save_tags()
  for label in pairs(C.standing) do Q.save_standing(label) end
  local opened, closed, set, drop = {}, {}, {}, {}
  for _, L in ipairs(C.lane_list) do
    Q.save_lane(L)
    if L.there ~= L.was_there then
      local changed = L.there and opened or closed
      changed[#changed + 1] = L.lane
    end
  end
  Q.many('SADD', B .. 'lanes', opened)
  Q.many('SREM', B .. 'lanes', closed)
  for name in pairs(C.counters_dirty) do
    if C.counters[name] == 0 then
      drop[#drop + 1] = name
    else
      set[#set + 1] = name
      set[#set + 1] = Q.exact(C.counters[name])
    end
  end
  Q.many('HSET', B .. 'counts', set, 2)
  Q.many('HDEL', B .. 'counts', drop)
  Q.publish()
end
