"""Charts as inline SVG: no scripts, nothing from elsewhere. Colours are classes of the page.

Every length is a whole number of pixels, worked out from whole quantities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 520
HEIGHT: Final = 230
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 14, 26
STEPS: Final = 4
ROW: Final = 34

Spelled = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Series:
    """One series: its name, its colour's class, and its values, one for each label."""

    name: str
    colour: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar: its label, value, what is written beside it, and its colour's class."""

    label: str
    value: int
    text: str
    colour: str


def stacked(title: str, labels: Sequence[str], series: Sequence[Series], spelled: Spelled) -> str:
    """Return columns whose parts stand on each other."""
    totals = [sum(each.values[place] for each in series) for place in range(len(labels))]
    most, step = _scale(max(totals, default=0))
    parts = [_grid(most, step, spelled)]
    slot, width = _slots(len(labels))
    for place, label in enumerate(labels):
        left, below = LEFT + place * slot + (slot - width) // 2, 0
        for each in series:
            value = each.values[place]
            top, height = _span(below, below + value, most)
            below += value
            tip = f"{label}: {spelled(value)} {each.name}"
            parts.append(_rect(left, top, width, height, each.colour, tip))
        top, _ = _span(0, below, most)
        parts.append(_text(left + width // 2, top - 4, spelled(below), "middle", "value"))
        parts.append(_text(left + width // 2, HEIGHT - 8, label, "middle", "label"))
    return _svg(title, WIDTH, HEIGHT, parts)


def grouped(title: str, labels: Sequence[str], series: Sequence[Series], spelled: Spelled) -> str:
    """Return columns that stand side by side, for comparison."""
    most, step = _scale(max((value for each in series for value in each.values), default=0))
    parts = [_grid(most, step, spelled)]
    slot, width = _slots(len(labels))
    each_width = max(2, width // max(1, len(series)))
    for place, label in enumerate(labels):
        left = LEFT + place * slot + (slot - width) // 2
        for index, each in enumerate(series):
            top, height = _span(0, each.values[place], most)
            tip = f"{label}: {spelled(each.values[place])} {each.name}"
            x = left + index * each_width
            parts.append(_rect(x, top, each_width - 2, height, each.colour, tip))
        parts.append(_text(left + width // 2, HEIGHT - 8, label, "middle", "label"))
    return _svg(title, WIDTH, HEIGHT, parts)


def bars(title: str, rows: Sequence[Bar], *, label_width: int = 160) -> str:
    """Return horizontal bars. Those below zero grow to the left of the axis."""
    most = max((abs(row.value) for row in rows), default=0) or 1
    below = any(row.value < 0 for row in rows)
    above = any(row.value > 0 for row in rows) or not below
    room = WIDTH - label_width - RIGHT - 8
    text_room = 92
    reach = (room - text_room * (below + above)) // (below + above)
    axis = label_width + (text_room + reach if below else 0)
    parts = []
    for place, row in enumerate(rows):
        y = place * ROW + 4
        length = max(1, reach * abs(row.value) // most) if row.value else 1
        left = axis if row.value >= 0 else axis - length
        middle = y + ROW // 2 + 1
        parts.append(_text(0, middle, row.label, "start", "name"))
        parts.append(_rect(left, y + 4, length, ROW - 14, row.colour, f"{row.label}: {row.text}"))
        at, anchor = (left + length + 6, "start") if row.value >= 0 else (left - 6, "end")
        parts.append(_text(at, middle, row.text, anchor, "value"))
    height = len(rows) * ROW + 8
    if below:
        parts.append(f'<line class="axis" x1="{axis}" x2="{axis}" y1="0" y2="{height}"/>')
    return _svg(title, WIDTH, height, parts)


def legend(series: Sequence[Series]) -> str:
    """Return what the colours mean."""
    items = "".join(
        f'<li><svg width="12" height="12" aria-hidden="true"><rect width="12" height="12" rx="3" '
        f'class="{each.colour}"/></svg>{escape(each.name)}</li>'
        for each in series
    )
    return f'<ul class="legend">{items}</ul>'


def meter(value: int, most: int, colour: str) -> str:
    """Return a small bar for a cell of a table."""
    width = 90 * abs(value) // most if most else 0
    return (
        f'<svg class="meter" width="90" height="8" aria-hidden="true"><rect width="90" height="8" '
        f'rx="4" class="track"/><rect width="{width}" height="8" rx="4" class="{colour}"/></svg>'
    )


def _scale(most: int) -> tuple[int, int]:
    """Return the top of the axis and its step: round numbers."""
    step, unit = 1, 1
    while step * STEPS < most:
        for factor in (1, 2, 5):
            step = unit * factor
            if step * STEPS >= most:
                break
        else:
            unit *= 10
    return max(1, -(-most // step)) * step, step


def _slots(count: int) -> tuple[int, int]:
    slot = (WIDTH - LEFT - RIGHT) // max(1, count)
    return slot, min(46, slot * 7 // 10)


def _span(low: int, high: int, most: int) -> tuple[int, int]:
    """Return the top and the height, in pixels, of what reaches from one value to another."""
    room = HEIGHT - TOP - BOTTOM
    bottom, top = room * low // most, room * high // most
    return TOP + room - top, top - bottom


def _grid(most: int, step: int, spelled: Spelled) -> str:
    lines = []
    for value in range(0, most + 1, step):
        y, _ = _span(0, value, most)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        lines.append(_text(LEFT - 8, y + 4, spelled(value), "end", "label"))
    return "".join(lines)


def _rect(x: int, y: int, width: int, height: int, colour: str, tip: str) -> str:
    if height <= 0:
        return ""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="2" class="{colour}">'
        f"<title>{escape(tip)}</title></rect>"
    )


def _text(x: int, y: int, text: str, anchor: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>'


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
