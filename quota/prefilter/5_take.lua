-- What it takes, appended to the sections; what is dead or too old for any window is left out.
if n_names > 200 or n_members > 240 then return {DOUBTFUL, now} end  -- until SQL says which of them still matter
local new_names, new_members = '', ''
local function number_of(name)
  if not names[name] then
    n_names = n_names + 1
    names[name], new_names = n_names, new_names .. name
  end
  return names[name]
end
if me == 255 then
  n_members = n_members + 1
  me, new_members = n_members, member
end
local leases, others = sub(blob, at_leases, at_unbooked - 1), sub(blob, at_unbooked, at_uses - 1)
if dead then
  local kept, dropped = {}, {}
  for at = at_leases, at_unbooked - 1, LEASE do
    local expires, _, flags, lease = unpack('<I7I1I1c4', blob, at)
    if flags % 2 == 0 or expires > now then kept[#kept + 1] = sub(blob, at, at + LEASE - 1)
    else dropped[lease] = true end
  end
  leases, n_leases, kept = table.concat(kept), #kept, {}
  for at = at_unbooked, at_uses - 1, UNBOOKED do
    if unpack('<I7', blob, at) > now then kept[#kept + 1] = sub(blob, at, at + UNBOOKED - 1) end
  end
  others, n_unbooked = table.concat(kept), #kept
  local uses, prints = {}, {}
  for u = 0, n_uses - 1 do
    local of_grant = sub(blob, at_prints + 4 * u, at_prints + 4 * u + 3)
    if not dropped[of_grant] then
      uses[#uses + 1], prints[#prints + 1] = sub(blob, at_uses + USE * u, at_uses + USE * u + USE - 1), of_grant
    end
  end
  blob = sub(blob, 1, at_uses - 1) .. table.concat(uses) .. table.concat(prints) .. sub(blob, at_spends)
  n_uses, stale_uses, at_prints = #uses, 0, at_uses + USE * #uses
  at_spends = at_prints + 4 * n_uses
  at_rest, at_filter = 0, 0
end
local uses, prints = sub(blob, at_uses + USE * stale_uses, at_prints - 1), sub(blob, at_prints + 4 * stale_uses, at_spends - 1)
n_uses = n_uses - stale_uses
local rates = sub(blob, at_tats, at_lots - 1)
if unbooked then
  others = others .. pack('<I7I7I1I1c8c4', now + hold, now, me, 0, sub(print, 1, 8), sub(print, 9, 12))
  n_unbooked = n_unbooked + 1
  for _, rate in ipairs(taken) do
    tats[number_of(rate[1]) * 256 + rate[2]] = {rate[3], rate[4], rate[5]}
  end
  local kept = {}
  for place, rate in pairs(tats) do
    kept[#kept + 1] = pack('<I1I1I7I6I6', floor(place / 256), place % 256, rate[1], rate[2], rate[3])
  end
  rates, n_tats = table.concat(kept), #kept
else
  leases = leases .. pack('<I7I1I1c4', now + UNCONFIRMED_LIVES, me, UNCONFIRMED + RETURNS, print)
  n_leases = n_leases + 1
  for _, part in ipairs(gives) do
    local source = sources[part[1]]
    uses = uses .. pack('<I7I1I1I3', now, number_of(source[7]) + (source[1] and 128 or 0), me, part[2])
    prints, n_uses = prints .. print, n_uses + 1
  end
end
local header = pack(HEADER, VERSION, seq, seen, told, now, n_facts, n_names, n_members, n_tats, n_lots, n_leases,
  n_unbooked, n_uses, n_spends, n_filter, partial)
redis.call('SET', KEYS[1], header .. sub(blob, HEADER_SIZE + 1, at_members - 1) .. new_names
  .. sub(blob, at_members, at_tats - 1) .. new_members .. rates .. sub(blob, at_lots, at_leases - 1)
  .. leases .. others .. uses .. prints .. sub(blob, at_spends), 'PX', ttl)
if not unbooked then return {PASSED, now} end
return {PASSED, now, now + hold, reads}
