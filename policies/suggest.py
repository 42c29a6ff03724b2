"""Suggestions for misspelt names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean X?`, or what there is to choose from, to end an error's line with."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f": did you mean `{close[0]}`?"
    if not names:
        return ": there are none"
    return f": there are {', '.join(f'`{known_name}`' for known_name in names[:12])}{', ...' if len(names) > 12 else ''}"
