-- Everything but a decision: what SQL said since, and the lives of grants that SQL does not know.
if ARGV[1] ~= 'd' then
  local op, now, ttl = ARGV[1], clock(ARGV[2]), tonumber(ARGV[3])

  -- A filter of keys (Bloom, one hash) that knows one more key.
  local function with_key(filter, print)
    if #filter == 0 then return filter end
    local bit = unpack('<I4', print) % (8 * #filter)
    local place = floor(bit / 8) + 1
    local byte = string.byte(filter, place)
    if floor(byte / 2 ^ (bit % 8)) % 2 == 1 then return filter end
    return sub(filter, 1, place - 1) .. string.char(byte + 2 ^ (bit % 8)) .. sub(filter, place + 1)
  end

  local function parsed(blob)
    local version, book, seq, seen, told, last, reach, n_facts, n_names, n_members, n_tats, n_lots, n_leases,
      n_unbooked, n_uses, n_spends, n_filter, partial = unpack(HEADER, blob)
    if version ~= VERSION then return nil end
    local s = {book = book, seq = seq, seen = seen, told = told, last = last, reach = reach, partial = partial,
      tats = {}, leases = {}, unbooked = {}, uses = {}}
    local at = HEADER_SIZE + 1
    local function take(size)
      at = at + size
      return sub(blob, at - size, at - 1)
    end
    s.facts = take(n_facts)
    local names, members = {}, {[0] = '', [254] = '*'}
    for index = 1, n_names do names[index] = take(4) end
    for index = 1, n_members do members[index] = take(8) end
    for index = 1, n_tats do
      local name, whose, q, r, scale = unpack('<I1I1I7I6I6', take(TAT))
      s.tats[index] = {names[name], members[whose], q, r, scale}
    end
    -- Lots and spends keep their numbers of names: they change as a whole, with the names beside them.
    s.names, s.members, s.n_lots, s.lots = names, members, n_lots, take(LOT * n_lots)
    for index = 1, n_leases do
      local expires, whose, flags, print = unpack('<I7I1I1c4', take(LEASE))
      s.leases[index] = {expires, members[whose], flags, print}
    end
    for index = 1, n_unbooked do
      local expires, granted, whose, flags, print, request = unpack('<I7I7I1I1c8c4', take(UNBOOKED))
      s.unbooked[index] = {expires, granted, members[whose], flags, print, request}
    end
    for index = 1, n_uses do
      local granted, source, whose, units = unpack('<I7I1I1I3', take(USE))
      local paid = source >= 128
      s.uses[index] = {granted, names[paid and source - 128 or source], paid, members[whose], units}
    end
    for index = 1, n_uses do s.uses[index][6] = take(4) end
    s.n_spends, s.spends = n_spends, take(SPEND * n_spends)
    s.filter = take(n_filter)
    s.rest = sub(blob, at)
    return s
  end

  local function save(s)
    local names, members, name_of, member_of = {}, {}, {}, {[''] = 0, ['*'] = 254}
    for index, name in ipairs(s.names) do names[index], name_of[name] = name, index end
    for index, member in ipairs(s.members) do members[index], member_of[member] = member, index end
    local function number(list, of, value)
      if not of[value] then
        list[#list + 1] = value
        of[value] = #list
      end
      return of[value]
    end
    local tats, leases, unbooked, uses, prints = {}, {}, {}, {}, {}
    for index, t in ipairs(s.tats) do
      tats[index] = pack('<I1I1I7I6I6', number(names, name_of, t[1]), number(members, member_of, t[2]), t[3], t[4], t[5])
    end
    for index, l in ipairs(s.leases) do
      leases[index] = pack('<I7I1I1c4', l[1], number(members, member_of, l[2]), l[3], l[4])
    end
    for index, u in ipairs(s.unbooked) do
      unbooked[index] = pack('<I7I7I1I1c8c4', u[1], u[2], number(members, member_of, u[3]), u[4], u[5], u[6])
    end
    for index, u in ipairs(s.uses) do
      local source = number(names, name_of, u[2]) + (u[3] and 128 or 0)
      uses[index], prints[index] = pack('<I7I1I1I3', u[1], source, number(members, member_of, u[4]), u[5]), u[6]
    end
    local concat = table.concat
    if #names > NAMES_MOST or #members > MEMBERS_MOST or #tats > 255 or #leases > ROWS_MOST or #uses > ROWS_MOST then
      return false
    end
    redis.call('SET', KEYS[1], pack(HEADER, VERSION, s.book, s.seq, s.seen, s.told, s.last, s.reach, #s.facts, #names,
      #members, #tats, s.n_lots, #leases, #unbooked, #uses, s.n_spends, #s.filter, s.partial) .. s.facts
      .. concat(names) .. concat(members) .. concat(tats) .. s.lots .. concat(leases) .. concat(unbooked)
      .. concat(uses) .. concat(prints) .. s.spends .. s.filter .. s.rest, 'PX', ttl)
    return true
  end

  -- The account has outgrown what can be kept of it here: nothing of what SQL said stays, and SQL decides.
  local function let_go(s)
    s.seen, s.told, s.n_lots, s.lots, s.n_spends, s.spends, s.rest = math.max(s.seen, s.seq), 0, 0, '', 0, '', ''
    s.leases, s.uses, s.tats, s.filter, s.partial = {}, {}, {}, '', 1
    if #s.unbooked == 0 or not save(s) then redis.call('DEL', KEYS[1]) end
  end

  local function without(list, place, print)
    local kept = {}
    for _, each in ipairs(list) do
      if each[place] ~= print then kept[#kept + 1] = each end
    end
    return kept
  end

  -- What is noted of a grant that SQL has not told of. Returns whether there was such a note.
  local function drop_note(s, print)
    for _, lease in ipairs(s.leases) do
      if lease[4] == print and lease[3] % 2 == UNCONFIRMED then
        s.leases, s.uses = without(s.leases, 4, print), without(s.uses, 6, print)
        return true
      end
    end
    return false
  end

  local blob = redis.call('GET', KEYS[1])
  local s = blob and #blob >= HEADER_SIZE and parsed(blob)

  if op == 'p' then
    -- What SQL says of the whole account, so many microseconds ago; of two accounts of it, the later record wins. An
    -- account that was forgotten and has come back has a later book.
    local new = parsed(ARGV[4])
    new.told = math.max(now - tonumber(ARGV[5]), 1)
    if s and s.book > new.book and new.book > 0 then return 0 end
    if s and (s.book == new.book or s.book == 0 or new.book == 0) then
      if s.seq > new.seq then return 0 end
      new.seen, new.last = math.max(s.seen, new.seq), math.max(s.last, new.last)
      if s.seq == new.seq and s.book == new.book then
        new.told = math.max(s.told, new.told)
      end
      local known, pending = {}, {}
      for _, lease in ipairs(new.leases) do known[lease[4]] = true end
      for _, use in ipairs(new.uses) do known[use[6]] = true end
      for _, lease in ipairs(s.leases) do
        if lease[3] % 2 == UNCONFIRMED and lease[1] > now and not known[lease[4]] then
          new.leases[#new.leases + 1], pending[lease[4]] = lease, true
          new.filter = with_key(new.filter, lease[4])
        end
      end
      for _, use in ipairs(s.uses) do
        if pending[use[6]] then new.uses[#new.uses + 1] = use end
      end
    end
    if s then
      for _, grant in ipairs(s.unbooked) do
        if grant[1] > now then new.unbooked[#new.unbooked + 1] = grant end
      end
      for _, rate in ipairs(s.tats) do
        local place = nil
        for index, other in ipairs(new.tats) do
          if other[1] == rate[1] and other[2] == rate[2] then place = index end
        end
        local other = place and new.tats[place]
        if not other then
          if rate[3] >= now then new.tats[#new.tats + 1] = rate end
        elseif rate[3] > other[3] or (rate[3] == other[3] and rate[4] / rate[5] > other[4] / other[5]) then
          new.tats[place] = rate
        end
      end
    end
    if not save(new) then let_go(new) end
    return 1
  end
  if not s then return 0 end

  if op == 's' then
    -- SQL has written something that is told later: until then no denial rests on what is known here.
    local book, after = tonumber(ARGV[4]), tonumber(ARGV[5])
    if s.book > book or (s.book == book and s.seq >= after) then return 0 end
    if s.book == book or s.book == 0 then s.seen = math.max(s.seen, after) end
    s.told = 0
  elseif op == 'u' then
    -- SQL did not grant it.
    if not drop_note(s, ARGV[4]) then return 0 end
  elseif op == 'g' then
    -- One grant as SQL had it so many microseconds ago: its hold, what it took outside of lots, and rates.
    local g, said = cmsgpack.unpack(ARGV[4]), math.max(now - tonumber(ARGV[5]), 1)
    local print, book, before, after, at, expires, flags, member, uses, rates =
      g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10]
    local noted = drop_note(s, print)
    if s.book > book or (s.book == book and s.seq >= after) then
      if noted then save(s) end
      return 0
    end
    -- Two keys may share a fingerprint: then only SQL can tell which of the grants is meant.
    local clash = s.book ~= book and s.book > 0
    for _, lease in ipairs(s.leases) do clash = clash or lease[4] == print end
    for _, use in ipairs(s.uses) do clash = clash or use[6] == print end
    if not clash then
      if expires > 0 then s.leases[#s.leases + 1] = {expires, member, flags, print} end
      for _, use in ipairs(uses) do
        s.uses[#s.uses + 1] = {use[1], use[2], false, member, use[3], print}
      end
    end
    for _, rate in ipairs(rates) do
      local kept = {rate}
      for _, other in ipairs(s.tats) do
        if other[3] >= at and not (other[1] == rate[1] and other[2] == rate[2]) then kept[#kept + 1] = other end
      end
      s.tats = kept
    end
    s.filter = with_key(s.filter, print)
    if not clash and s.seq == before and s.seen <= before and s.told > 0 then
      s.book, s.seq, s.told = book, after, math.max(s.told, said)
    else
      s.told = 0
    end
    if s.book == book or s.book == 0 then s.seen = math.max(s.seen, after) end
    s.last = math.max(s.last, at)
  elseif op == 'l' then
    let_go(s)
    return 1
  elseif op == 'f' then
    return redis.call('DEL', KEYS[1])
  elseif op == 'e' or op == 'x' or op == 'q' then
    -- A grant that SQL does not know: ended, extended to an instant, or asked for.
    for _, grant in ipairs(s.unbooked) do
      if grant[5] == ARGV[4] then
        local alive = grant[1] > now and grant[4] < ENDED
        if op == 'e' and alive then grant[4] = tonumber(ARGV[5]) end
        if op == 'x' and alive then grant[1] = math.max(grant[1], now + tonumber(ARGV[5])) end
        if op ~= 'q' and alive then save(s) end
        return {alive and 1 or 0, now, grant[2], grant[1], grant[4]}
      end
    end
    return {}
  end
  if not save(s) then let_go(s) end
  return 1
end
