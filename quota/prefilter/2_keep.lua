-- Everything but a decision: what SQL said since, and the lives of grants that SQL does not know.
if ARGV[1] ~= 'd' then
  local op, now, ttl = ARGV[1], clock(ARGV[2]), tonumber(ARGV[3])

  local function parsed(blob)
    local version, seq, seen, told, last, n_facts, n_names, n_members, n_tats, n_lots, n_leases, n_unbooked,
      n_uses, n_spends, n_filter, partial = unpack(HEADER, blob)
    if version ~= VERSION then return nil end
    local s = {seq = seq, seen = seen, told = told, last = last, tats = {}, leases = {}, unbooked = {}, uses = {}, partial = partial}
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
    redis.call('SET', KEYS[1], pack(HEADER, VERSION, s.seq, s.seen, s.told, s.last, #s.facts, #names, #members, #tats,
      s.n_lots, #leases, #unbooked, #uses, s.n_spends, #s.filter, s.partial) .. s.facts .. concat(names) .. concat(members)
      .. concat(tats) .. s.lots .. concat(leases) .. concat(unbooked) .. concat(uses) .. concat(prints) .. s.spends
      .. s.filter .. s.rest, 'PX', ttl)
  end

  local function without(list, place, print)
    local kept = {}
    for _, each in ipairs(list) do
      if each[place] ~= print then kept[#kept + 1] = each end
    end
    return kept
  end

  local blob = redis.call('GET', KEYS[1])
  local s = blob and parsed(blob)

  if op == 'p' then
    -- What SQL says of the whole account; of two accounts of it, the later record wins.
    local new = parsed(ARGV[4])
    new.told = now
    if s then
      if s.seq > new.seq then return 0 end
      new.seen, new.last = math.max(s.seen, new.seq), math.max(s.last, new.last)
      new.unbooked = s.unbooked
      local known = {}
      for _, lease in ipairs(new.leases) do known[lease[4]] = true end
      for _, use in ipairs(new.uses) do known[use[6]] = true end
      local pending = {}
      for _, lease in ipairs(s.leases) do
        if lease[3] % 2 == UNCONFIRMED and lease[1] > now and not known[lease[4]] then
          new.leases[#new.leases + 1], pending[lease[4]] = lease, true
        end
      end
      for _, use in ipairs(s.uses) do
        if pending[use[6]] then new.uses[#new.uses + 1] = use end
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
    save(new)
    return 1
  end
  if not s then return 0 end

  if op == 's' then
    -- SQL wrote something that is told later: until then no denial rests on what is known here.
    s.seen, s.told = math.max(s.seen, tonumber(ARGV[4])), 0
  elseif op == 'u' then
    -- SQL did not grant it.
    for _, lease in ipairs(s.leases) do
      if lease[4] == ARGV[4] and lease[3] % 2 ~= UNCONFIRMED then return 0 end
    end
    s.leases, s.uses = without(s.leases, 4, ARGV[4]), without(s.uses, 6, ARGV[4])
  elseif op == 'g' then
    -- One grant as SQL has it now: its hold, if it is open, what it took and has not given back, and rates.
    local g = cmsgpack.unpack(ARGV[4])
    local print, before, after, at, expires, flags, member, uses, rates = g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9]
    s.leases, s.uses = without(s.leases, 4, print), without(s.uses, 6, print)
    if expires > 0 then s.leases[#s.leases + 1] = {expires, member, flags, print} end
    for _, use in ipairs(uses) do
      s.uses[#s.uses + 1] = {use[1], use[2], false, member, use[3], print}
    end
    for _, rate in ipairs(rates) do
      local kept = {rate}
      for _, other in ipairs(s.tats) do
        if other[3] >= at and not (other[1] == rate[1] and other[2] == rate[2]) then kept[#kept + 1] = other end
      end
      s.tats = kept
    end
    if #s.filter > 0 then
      local bit = unpack('<I4', print) % (8 * #s.filter)
      local place = floor(bit / 8) + 1
      local byte = string.byte(s.filter, place)
      if floor(byte / 2 ^ (bit % 8)) % 2 == 0 then
        s.filter = sub(s.filter, 1, place - 1) .. string.char(byte + 2 ^ (bit % 8)) .. sub(s.filter, place + 1)
      end
    end
    if s.seq == before and s.seen <= before then s.seq, s.told = after, now end
    s.seen, s.last = math.max(s.seen, after), math.max(s.last, at)
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
  save(s)
  return 1
end
