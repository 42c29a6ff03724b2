-- Whether so many units are within a limit that counts them.
local function within(limit, units)
  if limit[1] == 3 then return sums[limit[2]] + units <= limit[3] end
  local cost = {}
  for _, lot in ipairs(lots) do
    local part = math.min(lot[1], units)
    if part <= 0 then break end
    cost[lot[4]] = (cost[lot[4]] or 0) - floor(-lot[3] * part / lot[2])
    units = units - part
  end
  for _, cap in ipairs(limit[2]) do
    local asked = cost[cap[3]] or 0
    if asked > 0 and sums[cap[1]] + asked > cap[2] then return false end
    cost[cap[3]] = 0
  end
  for _, foreign in pairs(cost) do
    if foreign > 0 then return false end
  end
  return true
end

local function most_within(limit, units)
  if limit[1] == 3 then return math.max(0, math.min(units, limit[3] - sums[limit[2]])) end
  local low, high = 0, units
  while low < high do
    local middle = floor((low + high + 1) / 2)
    if within(limit, middle) then low = middle else high = middle - 1 end
  end
  return low
end

-- The sources, in order (policies/waterfall.py says why).
local sources, heed_stops = {}, p[6] == 1
for s = 1, n_sources do
  local guards = {}
  for g = 1, p[c + 6] do guards[g] = p[c + 6 + g] end
  -- paid, window, units, weight, split, guards, name
  sources[s] = {p[c] == 2, p[c + 1], p[c + 2], p[c + 3], p[c + 4] == 1, guards, p[c + 5]}
  c = c + 7 + #guards
end

local function room(index, need, paid_units, given)
  local source = sources[index]
  local left = source[1] and available or source[3] - sums[source[2]]
  local units, stop = math.max(0, math.min(need, left)), false
  if source[1] then units = math.max(0, math.min(units, paid_units)) end
  for _, guard in ipairs(source[6]) do
    local before = 0
    for _, part in ipairs(given) do
      for _, other in ipairs(sources[part[1]][6]) do
        if other == guard then before = before + part[2] end
      end
    end
    local limit = limits[guard]
    if not within(limit, before + need) then
      stop = stop or (limit[1] == 3 and limit[4] and heed_stops)
      units = math.min(units, math.max(0, most_within(limit, before + need) - before))
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
  local gives = least > 0 and {{index, least}} or {}
  for _, part in ipairs(others) do gives[#gives + 1] = part end
  return gives
end

local frozen = p[11] == 1
local gives, passed, total = {}, not frozen, 0
if not unbooked and passed then
  gives = cover(1, 1, 1, p[5], gives)
  passed = gives ~= nil
  for _, part in ipairs(gives or {}) do total = total + part[2] end
end
local guarded = p[c]
for l, limit in ipairs(limits) do
  if limit[1] < 3 then
    passed = passed and limit[2]
  elseif floor(guarded / 2 ^ l) % 2 == 0 and passed then
    passed = within(limit, total)
  end
end

if not passed then
  local doubtful = unconfirmed or due or told == 0 or seen > seq or now - told > fresh
  if doubtful and not unbooked then return {DOUBTFUL, now} end
  -- The filter says nothing to the caller, and is the largest part.
  return {DENIED, now, sub(blob, 1, at_filter - 1) .. sub(blob, at_rest), n_filter, partial}
end
if ARGV[3] ~= '0' and now > tonumber(ARGV[3]) then return {LATE, now} end
