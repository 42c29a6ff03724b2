-- The state of one account in one string: a header with counts, then sections of rows of fixed length. state.py
-- writes and reads the same layout. Instants are microseconds since 1970, names and members fingerprints.
local spread = unpack  -- of a table, while the name is Lua's own
local sub, find, unpack, pack, floor = string.sub, string.find, struct.unpack, struct.pack, math.floor
-- The header: version, book (0: SQL knows none), the records that it rests on and that there are (seq, seen), when SQL
-- said so (told), the account's time (last), how far back it goes (reach, in seconds), then counts.
local VERSION, HEADER, HEADER_SIZE = 2, '<I1I6I7I7I7I7I4I2I1I1I1I1I2I2I2I2I2I1', 56
local TAT, LOT, LEASE, UNBOOKED, USE, SPEND = 21, 22, 13, 28, 12, 19
-- Names and members are numbered in a byte (of names half of it says whether the source is paid); rows are read at once.
local NAMES_MOST, MEMBERS_MOST, ROWS_MOST = 127, 250, 1500
local UNCONFIRMED, RETURNS, FROM_LOTS, ENDED = 1, 2, 4, 8
local UNCONFIRMED_LIVES = 5000000

local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

