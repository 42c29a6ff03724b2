-- The state of one account in one string: a header with counts, then sections of rows of fixed length. state.py
-- writes and reads the same layout. Instants are microseconds since 1970, names and members fingerprints.
local sub, find, unpack, pack, floor = string.sub, string.find, struct.unpack, struct.pack, math.floor
local VERSION, HEADER, HEADER_SIZE = 1, '<I1I7I7I7I7I2I1I1I1I1I2I2I2I2I2I1', 46
local TAT, LOT, LEASE, UNBOOKED, USE, SPEND = 21, 22, 13, 28, 12, 19
local UNCONFIRMED, RETURNS, FROM_LOTS, ENDED = 1, 2, 4, 8
local UNCONFIRMED_LIVES = 5000000

local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

