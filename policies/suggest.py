"""Words for errors: what somebody wrote, in one short line, and what they may have meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from difflib import SequenceMatcher
from fractions import Fraction
from typing import Final

SHOWN_MAX: Final = 60
LISTED_MAX: Final = 12
NAME_MAX: Final = 100
PREFIX_LEAST: Final = 3
ALIKE: Final = Fraction(65, 100)
"""How alike two names are when one may be a misspelling of the other."""

_LOOKS_TYPED: Final = re.compile(r"([-+]?[0-9.]+([eE][-+]?[0-9]+)?|true|false|null|~|)\Z")
"""Text that would be read as something else if it were not quoted."""


def shown(value: object, most: int = SHOWN_MAX) -> str:
    """Spell a value as a policy file does, on one line and in backticks; a collection by its shape."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"`{str(value).lower()}`"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case int() if abs(value) >= 10**most:
            return "a number of too many digits"
        case Decimal() if not value.is_finite() or abs(value.adjusted()) > most:
            return f"`{value}`"
    text = one_line(str(value), most)
    return f'`"{text}"`' if isinstance(value, str) and _LOOKS_TYPED.match(value) else f"`{text}`"


def one_line(text: str, most: int = SHOWN_MAX) -> str:
    """Escape what does not print and cut what is long, so that an error stays on its line."""
    printable = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1]
    )
    return printable if len(printable) <= most else f"{printable[: most - 3]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean X?`, or what there is to choose from, to end an error's line with."""
    names = sorted(known)
    close = max(names, key=lambda known_name: _likeness(name, known_name), default="")
    if close and _likeness(name, close) >= ALIKE:
        return f": did you mean `{one_line(close)}`?"
    if not names:
        return ": there are none"
    return f": there {'is' if len(names) == 1 else 'are'} {listed(names)}"


def listed(names: Iterable[str]) -> str:
    """Return names in backticks with commas, the first dozen of them."""
    every = list(names)
    text = ", ".join(f"`{one_line(name)}`" for name in every[:LISTED_MAX])
    return f"{text}, ... ({len(every)} in all)" if len(every) > LISTED_MAX else text


def _likeness(name: str, known: str) -> Fraction:
    """Return how alike two names are, from 0 to 1: twice what they share over what they have."""
    one, other = name.lower()[:NAME_MAX], known.lower()[:NAME_MAX]
    if len(one) >= PREFIX_LEAST and other.startswith(one):
        return max(ALIKE, Fraction(len(one), len(other)))
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return Fraction(2 * sum(block.size for block in blocks), max(1, len(one) + len(other)))
