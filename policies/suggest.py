"""Words for errors: what somebody wrote, in one short line, and what they may have meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Final

SHOWN_MAX: Final = 60
LISTED_MAX: Final = 12


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
    return f"`{one_line(str(value), most)}`"


def one_line(text: str, most: int = SHOWN_MAX) -> str:
    """Escape what does not print and cut what is long, so that an error stays on its line."""
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return printable if len(printable) <= most else f"{printable[: most - 3]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean X?`, or what there is to choose from, to end an error's line with."""
    names = sorted(known)
    by_lower = {known_name.lower(): known_name for known_name in reversed(names)}
    close = get_close_matches(name.lower()[:200], by_lower, n=1)
    if close:
        return f": did you mean `{by_lower[close[0]]}`?"
    if not names:
        return ": there are none"
    return f": there {'is' if len(names) == 1 else 'are'} {listed(names)}"


def listed(names: Iterable[str]) -> str:
    """Return names in backticks with commas, the first dozen of them."""
    every = list(names)
    text = ", ".join(f"`{one_line(name)}`" for name in every[:LISTED_MAX])
    return f"{text}, ... ({len(every)} in all)" if len(every) > LISTED_MAX else text
