-- Who pays: {name, 128 where it is paid, units} one after the other.
local gives = simple and {p[at_sources + 5], 0, total} or {}
if passed and not unbooked and not simple then
  -- Units come back to lots when what is due is written: only SQL can tell which source pays then.
  if due then return {DOUBTFUL, now} end
  local limits, sources = {}, {}
  c = at_limits
  for l = 1, n_limits do
    limits[l] = c
    c = c + (p[c] == 1 and 8 or p[c] == 2 and 3 or p[c] == 3 and 5 or 2 + 3 * p[c + 1])
  end
  for s = 1, n_sources do
    -- paid, window, units, weight, split, name, guards
    local guards = {}
    for g = 1, p[c + 6] do guards[g] = p[c + 6 + g] end
    sources[s] = {p[c] == 2, p[c + 1], p[c + 2], p[c + 3], p[c + 4] == 1, p[c + 5], guards}
    c = c + 7 + #guards
  end

  -- Lots that are alive, in burn order.
  local lots, available = {}, 0
  for l = 0, n_lots - 1 do
    local left, units, price, currency, expires = unpack('<I4I4I6I1I7', blob, at_lots + LOT * l)
    if expires == 0 or expires > now then
      lots[#lots + 1] = {left, units, price, currency}
      available = available + left
    end
  end

  -- Whether so many units are within a limit that counts them.
  local function within(at, units)
    if p[at] == 3 then return sums[p[at + 2]] + units <= p[at + 3] end
    local cost = {}
    for _, lot in ipairs(lots) do
      local part = math.min(lot[1], units)
      if part <= 0 then break end
      cost[lot[4]] = (cost[lot[4]] or 0) - floor(-lot[3] * part / lot[2])
      units = units - part
    end
    for cap = at + 2, at - 1 + 3 * p[at + 1], 3 do
      local currency = names[p[cap + 2]] or 255
      local asked = cost[currency] or 0
      if asked > 0 and sums[p[cap]] + asked > p[cap + 1] then return false end
      cost[currency] = 0
    end
    for _, foreign in pairs(cost) do
      if foreign > 0 then return false end
    end
    return true
  end

  local function most_within(at, units)
    if p[at] == 3 then return math.max(0, math.min(units, p[at + 3] - sums[p[at + 2]])) end
    local low, high = 0, units
    while low < high do
      local middle = floor((low + high + 1) / 2)
      if within(at, middle) then low = middle else high = middle - 1 end
    end
    return low
  end

  -- The sources, in order (policies/waterfall.py says why).
  local heed_stops = p[6] == 1

  local function room(index, need, paid_units, given)
    local source = sources[index]
    local left = source[1] and available or source[3] - sums[source[2]]
    local units, stop = math.max(0, math.min(need, left)), false
    if source[1] then units = math.max(0, math.min(units, paid_units)) end
    for _, guard in ipairs(source[7]) do
      local before, at = 0, limits[guard]
      for _, part in ipairs(given) do
        for _, other in ipairs(sources[part[1]][7]) do
          if other == guard then before = before + part[2] end
        end
      end
      if not within(at, before + need) then
        stop = stop or (p[at] == 3 and p[at + 4] == 1 and heed_stops)
        units = math.min(units, math.max(0, most_within(at, before + need) - before))
      end
    end
    return units, stop
  end

  local function same(one, other)
    if not one or #one ~= #other then return false end
    for index, part in ipairs(one) do
      if part[1] ~= other[index][1] or part[2] ~= other[index][2] then return false end
    end
    return true
  end

  -- Who pays for numerator/denominator of the request from this source on; nil: they cannot.
  local function cover(index, numerator, denominator, paid_units, given)
    if numerator == 0 then return {} end
    local source = sources[index]
    if not source then return nil end
    local weight = source[4]
    local need = -floor(-weight * numerator / denominator)
    local units, stop = room(index, need, paid_units, given)
    if units >= need then return {{index, need}} end
    if stop then return nil end
    if not source[5] or units == 0 then return cover(index + 1, numerator, denominator, paid_units, given) end
    local function rest(part)
      local before = {}
      for _, each in ipairs(given) do before[#before + 1] = each end
      before[#before + 1] = {index, part}
      return cover(index + 1, numerator * weight - part * denominator, denominator * weight,
        source[1] and paid_units - part or paid_units, before)
    end
    local others = rest(units)
    if not others then return nil end
    local least, most = 0, units
    while least < most do
      local middle = floor((least + most) / 2)
      if same(rest(middle), others) then most = middle else least = middle + 1 end
    end
    local parts = least > 0 and {{index, least}} or {}
    for _, part in ipairs(others) do parts[#parts + 1] = part end
    return parts
  end

  local parts = cover(1, 1, 1, p[5], {})
  passed, total = parts ~= nil, 0
  for _, part in ipairs(parts or {}) do
    local source = sources[part[1]]
    gives[#gives + 1], gives[#gives + 2], gives[#gives + 3] = source[6], source[1] and 128 or 0, part[2]
    total = total + part[2]
  end
  -- Limits of units that are not some sources' alone.
  for _, at in ipairs(limits) do
    if p[at] == 3 and p[at + 1] == 0 then passed = passed and within(at, total) end
  end
end

if not passed then
  if not unbooked and (doubtful or unconfirmed or due) then return {DOUBTFUL, now} end
  -- The filter says nothing to the caller, and is the largest part.
  return {DENIED, now, sub(blob, 1, at_filter - 1) .. sub(blob, at_rest), partial, doubtful and 1 or 0}
end
if now > tonumber(ARGV[3]) then return {LATE, now} end
