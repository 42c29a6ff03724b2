"""One change between two policy sets, in words, and for whom it is what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

from policies.words import joined

Effect = Literal["tightens", "loosens", "neutral"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change: its kind, where it stands, whom it concerns, what it is, and whether it takes or gives.

    `effect`: `tightens` takes from users, `loosens` gives to them, `neutral` is neither or cannot be told.
    """

    kind: str
    where: str
    who: tuple[str, ...]
    text: str
    effect: Effect = "neutral"

    def __str__(self) -> str:
        """Return the line that people read."""
        return self.text

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {**asdict(self), "who": list(self.who)}


@dataclass(frozen=True, slots=True)
class Part:
    """A change of one plan, before plans with the same change are grouped."""

    where: str
    what: str
    effect: Effect = "neutral"


def more_is(direction: Effect, old: int | Fraction, new: int | Fraction) -> Effect:
    """Return the effect of a number that changes, where more of it has this one."""
    if old == new or direction == "neutral":
        return "neutral"
    opposite: Effect = "tightens" if direction == "loosens" else "loosens"
    return direction if new > old else opposite


def grouped(
    kind: str, each: Iterable[tuple[str, Part]], inherits: dict[str, str | None]
) -> Iterator[Change]:
    """Join the plans that change alike: `plans standard and pro (inherits from standard): ...`."""
    groups: dict[tuple[str, Effect], list[tuple[str, str]]] = {}
    for plan, part in each:
        groups.setdefault((part.what, part.effect), []).append((plan, part.where))
    for (what, effect), members in groups.items():
        # Parents before those that inherit from them, so that a reader meets the cause first.
        members.sort(key=lambda member: (inherits.get(member[0]) is not None, member[0]))
        names = [name for name, _ in members]
        shown = joined(_with_parent(name, inherits, names) for name in names)
        who = f"plan{'s' if len(names) > 1 else ''} {shown}"
        yield Change(kind, members[0][1], tuple(names), f"{who}: {what}", effect)


def _with_parent(name: str, inherits: dict[str, str | None], names: list[str]) -> str:
    parent = inherits.get(name)
    return f"{name} (inherits from {parent})" if parent is not None and parent in names else name
