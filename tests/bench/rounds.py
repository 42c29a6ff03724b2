"""Alternating rounds of two sides, and the median of their ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Block = Callable[[], int]
"""Does a block of work and returns how many operations it was. This is what is timed."""

Side = Callable[[], Block]
"""Prepares a block, untimed: opens what is needed, from the same state every time."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How fast ours is as a multiple of the other side's speed: median, least and greatest over the rounds."""

    name: str
    ours: str
    other: str
    ours_us: float
    other_us: float
    median: float
    least: float
    greatest: float
    wanted: str


def compare(
    name: str, wanted: str, ours: tuple[str, Side], other: tuple[str, Side], *, rounds: int
) -> Ratio:
    """Run both sides in turn, in alternating order, and compare them round by round."""
    times: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        first, second = (ours[1], other[1]) if number % 2 else (other[1], ours[1])
        one, two = _timed(first), _timed(second)
        if number:  # the first round warms up
            times.append((one, two) if number % 2 else (two, one))
    ratios = [theirs / mine for mine, theirs in times]
    return Ratio(
        name=name,
        ours=ours[0],
        other=other[0],
        ours_us=statistics.median(mine for mine, _ in times),
        other_us=statistics.median(theirs for _, theirs in times),
        median=statistics.median(ratios),
        least=min(ratios),
        greatest=max(ratios),
        wanted=wanted,
    )


def _timed(side: Side) -> float:
    block = side()
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        operations = block()
        return (time.perf_counter() - began) / operations * 1_000_000
    finally:
        gc.enable()
