-- What it takes, appended to the sections; what is dead or too old for any window is left out.
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
if dead then
  local leases, others, uses, prints, dropped = {}, {}, {}, {}, {}
  for at = at_leases, at_unbooked - 1, LEASE do
    local expires, _, flags, lease = unpack('<I7I1I1c4', blob, at)
    if flags % 2 == 0 or expires > now then leases[#leases + 1] = sub(blob, at, at + LEASE - 1)
    else dropped[lease] = true end
  end
  for at = at_unbooked, at_uses - 1, UNBOOKED do
    if unpack('<I7', blob, at) > now then others[#others + 1] = sub(blob, at, at + UNBOOKED - 1) end
  end
  for u = 0, n_uses - 1 do
    local of_grant = sub(blob, at_prints + 4 * u, at_prints + 4 * u + 3)
    if not dropped[of_grant] then
      uses[#uses + 1], prints[#prints + 1] = sub(blob, at_uses + USE * u, at_uses + USE * u + USE - 1), of_grant
    end
  end
  blob = sub(blob, 1, at_leases - 1) .. table.concat(leases) .. table.concat(others) .. table.concat(uses)
    .. table.concat(prints) .. sub(blob, at_spends)
  n_leases, n_unbooked, n_uses, stale_uses = #leases, #others, #uses, 0
  at_unbooked = at_leases + LEASE * n_leases
  at_uses = at_unbooked + UNBOOKED * n_unbooked
  at_prints = at_uses + USE * n_uses
  at_spends = at_prints + 4 * n_uses
end
local lease, other, use, print_of = '', '', '', ''
local rates
if unbooked then
  other = pack('<I7I7I1I1c8c4', now + hold, now, me, 0, sub(print, 1, 8), sub(print, 9, 12))
  n_unbooked = n_unbooked + 1
  for row = 1, #taken, 5 do
    taken[row] = number_of(taken[row])
    if taken[row + 1] == 255 then taken[row + 1] = me end  -- who asks has a number by now
    if tats then rows_of[taken[row] * 256 + taken[row + 1]] = nil end
  end
  for _, row in pairs(rows_of or {}) do
    for field = row, row + 4 do taken[#taken + 1] = tats[field] end
  end
  n_tats = #taken / 5
  rates = n_tats > 0 and pack('<' .. string.rep('I1I1I7I6I6', n_tats), spread(taken)) or ''
else
  lease = pack('<I7I1I1c4', now + UNCONFIRMED_LIVES, me, UNCONFIRMED + RETURNS, print)
  n_leases = n_leases + 1
  for g = 1, #gives, 3 do
    use = use .. pack('<I7I1I1I3', now, number_of(gives[g]) + gives[g + 1], me, gives[g + 2])
    print_of = print_of .. print
    n_uses = n_uses + 1
  end
end
-- From the facts on to the open grants, mostly as it was.
local front
if rates or #new_names + #new_members > 0 then
  front = sub(blob, HEADER_SIZE + 1, at_members - 1) .. new_names .. sub(blob, at_members, at_tats - 1) .. new_members
    .. (rates or sub(blob, at_tats, at_lots - 1)) .. sub(blob, at_lots, at_unbooked - 1)
else
  front = sub(blob, HEADER_SIZE + 1, at_unbooked - 1)
end
local uses
if stale_uses == 0 then
  uses = other == '' and sub(blob, at_unbooked, at_prints - 1)
    or sub(blob, at_unbooked, at_uses - 1) .. other .. sub(blob, at_uses, at_prints - 1)
else
  uses = sub(blob, at_unbooked, at_uses - 1) .. other .. sub(blob, at_uses + USE * stale_uses, at_prints - 1)
end
-- An account can outgrow what is kept of it here, until SQL says which of its rows still matter.
if n_names > NAMES_MOST or n_members > MEMBERS_MOST or n_tats > 255 or n_uses - stale_uses > ROWS_MOST
  or n_leases > ROWS_MOST or n_unbooked > 65535 then
  return {DOUBTFUL, now}
end
-- What asks without taking anything from SQL has its own time here; of any other its grant will tell.
if unbooked then last = now end
-- Of a key that has passed once SQL is asked again, whatever became of it: its grant may be there, and the news lost.
at_filter = at_spends + SPEND * n_spends
local flag, behind = '', at_filter  -- the byte with this key's bit, and where it ends
if bit then
  flag, behind = string.char(byte + 2 ^ (bit % 8)), at_filter + floor(bit / 8) + 1
end
-- An instant of its own clock spares the server to make one of the time to live, for its replicas.
local by_server = ARGV[2] == ''
redis.call('SET', KEYS[1], pack(HEADER, VERSION, book, seq, seen, told, last, reach, n_facts, n_names, n_members, n_tats, n_lots,
  n_leases, n_unbooked, n_uses - stale_uses, n_spends, n_filter, partial) .. front .. lease .. uses .. use
  .. sub(blob, at_prints + 4 * stale_uses, at_spends - 1) .. print_of
  .. sub(blob, at_spends, behind - 1 - #flag) .. flag .. sub(blob, behind),
  by_server and 'PXAT' or 'PX', by_server and floor(now / 1000) + ttl or ttl)
-- The most frequent answer is the instant alone: a list costs the server half a microsecond.
if not unbooked then return now end
return {PASSED, now, now + hold, reads, doubtful and 1 or 0}
