-- One decision, over one account's state (its layout: state.py). Nothing is written unless everything passes.
--   ARGV: 'd', now in microseconds or '' for the server's clock, deadline in microseconds, the key's
--   fingerprint (and the request's, where SQL is not asked), facts that the caller assumed, program (program.py), and
--   the member's fingerprint, where there is one.
--   Answers: {verdict, now, ...}, see answers.py; or now alone, where SQL may grant it.
local PASSED, DENIED, FACTS, COLD, MAYBE_REPLAYED, DOUBTFUL, OTHER_WINDOW, LATE, REPLAYED, CONFLICT =
  1, 0, 2, 3, 4, 5, 6, 7, 8, 9
local now, print, member = clock(ARGV[2]), ARGV[4], ARGV[7]
local p = {cmsgpack.unpack(ARGV[6])}
local unbooked, fresh, keep, ttl, hold = p[4] == 1, p[7], p[8], p[9], p[10]
local blob = redis.call('GET', KEYS[1])
local doubtful, version, book, seq, seen, told, last, reach, n_facts, n_names, n_members, n_tats, n_lots, n_leases, n_unbooked,
  n_uses, n_spends, n_filter, partial
if blob and #blob >= HEADER_SIZE then
  version, book, seq, seen, told, last, reach, n_facts, n_names, n_members, n_tats, n_lots, n_leases, n_unbooked,
    n_uses, n_spends, n_filter, partial = unpack(HEADER, blob)
end
if version ~= VERSION then
  if not unbooked then return {COLD, now} end
  book, seq, seen, told, last, reach, n_facts, n_names, n_members, n_tats, n_lots, n_leases, n_unbooked, n_uses,
    n_spends, n_filter, partial = 0, 0, 0, 0, 0, 0, #ARGV[5], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
  blob = string.rep('\0', HEADER_SIZE) .. ARGV[5]
end
if last > now then now = last end
-- No denial rests on this: what SQL has said is incomplete, or too long ago by this clock or by another.
doubtful = told == 0 or seen > seq or now - told > fresh or told - now > fresh or reach * 1000000 < keep
if now < p[12] or now >= p[13] then return {OTHER_WINDOW, now} end
local at_names = HEADER_SIZE + 1 + n_facts
local at_members = at_names + 4 * n_names
local at_tats = at_members + 8 * n_members
local at_lots = at_tats + TAT * n_tats
local at_leases = at_lots + LOT * n_lots
local at_unbooked = at_leases + LEASE * n_leases
local at_uses = at_unbooked + UNBOOKED * n_unbooked
local at_prints = at_uses + USE * n_uses
local at_spends = at_prints + 4 * n_uses
local at_filter = at_spends + SPEND * n_spends
local at_rest = at_filter + n_filter

-- Granted keys first: a replay is answered before any limit, by SQL, which has the grant.
local bit, byte  -- of the filter, of this key
if unbooked then
  local place = n_unbooked > 0 and find(blob, sub(print, 1, 8), at_unbooked, true)
  while place and place < at_uses do
    if (place - at_unbooked) % UNBOOKED == 16 then
      local expires, at, _, flags, _, request = unpack('<I7I7I1I1c8c4', blob, place - 16)
      if expires > now then
        if request ~= sub(print, 9, 12) then return {CONFLICT, now} end
        return {REPLAYED, now, at, expires, flags}
      end
    end
    place = find(blob, sub(print, 1, 8), place + 1, true)
  end
else
  -- Of open grants and of usage. SQL can tell, should it only look like one.
  local place = n_leases + n_uses > 0 and find(blob, print, at_leases, true)
  if place and place < at_spends then return {MAYBE_REPLAYED, now} end
  if n_filter > 0 then
    bit = unpack('<I4', print) % (8 * n_filter)
    byte = string.byte(blob, at_filter + floor(bit / 8))
    if floor(byte / 2 ^ (bit % 8)) % 2 == 1 then return {MAYBE_REPLAYED, now} end
  end
end
if sub(blob, HEADER_SIZE + 1, at_names - 1) ~= ARGV[5] then
  return {FACTS, now, sub(blob, HEADER_SIZE + 1, at_names - 1)}
end

-- Names and members are kept once, and numbered. 0 is nobody; 255 matches none.
local names = {}
for index = 1, n_names do
  local at = at_names + 4 * index - 4
  names[sub(blob, at, at + 3)] = index
end
local me = member and 255 or 0
for index = 1, (me == 255 and n_members or 0) do
  local at = at_members + 8 * index - 8
  if sub(blob, at, at + 7) == member then me = index end
end

-- Open grants. What has expired gives its units back, where its policy says so.
local live, mine, unconfirmed, gone, due, dead = 0, 0, false, false, false, false
if n_leases > 0 then
  for at = at_leases, at_unbooked - 1, LEASE do
    local expires, whose, flags = unpack('<I7I1I1', blob, at)
    if expires > now then
      live = live + 1
      if whose == me then mine = mine + 1 end
      unconfirmed = unconfirmed or flags % 2 == 1
    else
      dead = dead or flags % 2 == 1
      if flags % 4 >= RETURNS then
        gone = gone or {}
        gone[sub(blob, at + 9, at + 12)] = true
      end
      due = due or flags % 8 >= FROM_LOTS
    end
  end
end
if n_unbooked > 0 then
  local at = at_unbooked
  for _ = 1, n_unbooked do
    local expires, _, whose, flags = unpack('<I7I7I1I1', blob, at)
    if expires <= now then
      dead = true
    elseif flags < ENDED then
      live = live + 1
      if whose == me then mine = mine + 1 end
    end
    at = at + UNBOOKED
  end
end

-- What each window holds, of the usage that has not come back.
local n_windows, n_limits, n_sources, c = p[1], p[2], p[3], 15
local sums, rows, n_rows, spends, stale_uses = {0, 0, 0, 0}, nil, 0, nil, 0  -- sums: with room for four at once
if n_windows > 0 and n_uses > 0 then
  rows = {unpack('<' .. string.rep('I7I1I1I3', n_uses), blob, at_uses)}  -- instant, source, whose, units
  n_rows = 4 * n_uses
  local old = now - reach * 1000000
  while stale_uses < n_uses and rows[4 * stale_uses + 1] <= old do stale_uses = stale_uses + 1 end
  for u = 0, gone and n_uses - 1 or -1 do
    if gone[sub(blob, at_prints + 4 * u, at_prints + 4 * u + 3)] then rows[4 * u + 4] = 0 end
  end
end
if n_spends > 0 then
  spends = {unpack('<' .. string.rep('I7I1I1I6c4', n_spends), blob, at_spends)}  -- instant, currency, whose, minor, print
  for row = 1, gone and 5 * n_spends or 0, 5 do
    if gone[spends[row + 4]] then spends[row + 3] = 0 end
  end
end
for w = 1, n_windows do
  local since, only, sum = p[c] == 0 and now - p[c + 1] + 1 or p[c + 1], p[c + 2] == 1 and me, 0
  if p[c + 3] == 1 then
    local currency = names[p[c + 4]] or 255
    for row = 1, 5 * n_spends, 5 do
      if spends[row] >= since and spends[row + 1] == currency and (not only or only == spends[row + 2]) then
        sum = sum + spends[row + 3]
      end
    end
    c = c + 6 + p[c + 5]
  else
    -- Of which sources, if not of all; their numbers say whether they are paid, too.
    local count, one, named = p[c + 4], nil, nil
    if count == 1 then
      one = names[p[c + 5]] or 255
    elseif count > 1 then
      named = {}
      for s = c + 5, c + 4 + count do named[names[p[s]] or 255] = true end
    end
    if count == 0 and not only then
      for row = 1, n_rows, 4 do
        if rows[row] >= since then sum = sum + rows[row + 3] end
      end
    else
      for row = 1, n_rows, 4 do
        if rows[row] >= since and (not only or only == rows[row + 2]) then
          local source = rows[row + 1] % 128
          if count == 0 or source == one or named and named[source] then sum = sum + rows[row + 3] end
        end
      end
    end
    c = c + 5 + count
  end
  sums[w] = sum
end

-- Most requests are paid for by their first source, an allowance that no limit guards. What is not noted in SQL takes
-- no units. Of any other request it is found below who pays, and how many units that are.
local at_limits, at_sources, simple, total = c, p[14], false, nil
if unbooked then
  total = 0
elseif n_sources > 0 and p[at_sources] == 1 and p[at_sources + 6] == 0 then
  simple = sums[p[at_sources + 1]] + p[at_sources + 3] <= p[at_sources + 2]
  if simple then total = p[at_sources + 3] end
end

-- The limits. A rate's state is a whole number of microseconds and a rest in parts of 1/limit: exact (GCRA).
local passed, reads, taken, tats, rows_of = p[11] == 0, nil, nil, nil, nil
if unbooked then reads, taken = {}, {} end
if n_tats > 0 then
  tats, rows_of = {unpack('<' .. string.rep('I1I1I7I6I6', n_tats), blob, at_tats)}, {}  -- name, whose, q, r, scale
  for row = 1, 5 * n_tats, 5 do
    if tats[row + 2] >= now then rows_of[tats[row] * 256 + tats[row + 1]] = row end
  end
end
for _ = 1, n_limits do
  local kind = p[c]
  if kind == 1 then
    -- The interval is per / limit, the burst lasts burst * per / limit: each a whole number and a rest.
    local name, limit = p[c + 1], p[c + 3]
    -- A rate of the whole account is kept under 254, so that it is none of any member.
    local q, r, whose = now, 0, p[c + 2] == 1 and me or 254
    local row = tats and names[name] and rows_of[names[name] * 256 + whose]
    if row then
      q, r = tats[row + 2], tats[row + 3]
      local scale = tats[row + 4]
      if scale ~= limit then
        local ceiling = -floor(-r * limit / scale)
        q, r = q + floor(ceiling / limit), ceiling % limit
      end
    end
    local next_q, next_r = q + p[c + 4], r + p[c + 5]
    if next_r >= limit then next_q, next_r = next_q + 1, next_r - limit end
    local ahead = next_q - now
    passed = passed and (ahead < p[c + 6] or (ahead == p[c + 6] and next_r <= p[c + 7]))
    if unbooked then
      reads[#reads + 1], reads[#reads + 2] = q, r
      local last_taken = #taken
      taken[last_taken + 1], taken[last_taken + 2], taken[last_taken + 3] = name, whose, next_q
      taken[last_taken + 4], taken[last_taken + 5] = next_r, limit
    end
    c = c + 8
  elseif kind == 2 then
    local used = p[c + 1] == 1 and mine or live
    passed = passed and used < p[c + 2]
    if unbooked then reads[#reads + 1] = used end
    c = c + 3
  elseif kind == 3 then
    -- Whether it guards sources only, window, units, denies. How many units are asked for may not be known yet.
    if unbooked then reads[#reads + 1] = sums[p[c + 2]] end
    if total and p[c + 1] == 0 and sums[p[c + 2]] + total > p[c + 3] then passed = false end
    c = c + 5
  else
    c = c + 2 + 3 * p[c + 1]  -- {window, limit, currency}, of sources that are paid
  end
end
