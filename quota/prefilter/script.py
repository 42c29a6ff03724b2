"""The script: the parts beside this file, read top to bottom as one text."""

from __future__ import annotations

from importlib.resources import files

PARTS = ("1_layout.lua", "2_keep.lua", "3_read.lua", "4_waterfall.lua", "5_take.lua")


def script_text() -> str:
    """Return the whole text, as Redis runs it."""
    folder = files("quota.prefilter")
    return "\n".join(folder.joinpath(part).read_text(encoding="utf-8") for part in PARTS)
