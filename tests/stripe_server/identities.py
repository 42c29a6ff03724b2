"""Identities as Stripe writes them: a prefix that tells the kind, and letters that tell nothing."""

from __future__ import annotations

import itertools
import random
import string
from typing import Final

_LETTERS: Final = string.ascii_letters + string.digits
_SHORT: Final = 14
_LONG: Final = 24
_SHORT_KINDS: Final = frozenset({"cus", "prod", "si", "di"})
_SERVERS = itertools.count(1)


class Identities:
    """Names things. Each server of a process draws its own course, the same in every run."""

    def __init__(self) -> None:
        self._random = random.Random(next(_SERVERS))

    def letters(self, count: int) -> str:
        return "".join(self._random.choices(_LETTERS, k=count))

    def make(self, prefix: str) -> str:
        return f"{prefix}_{self.letters(_SHORT if prefix in _SHORT_KINDS else _LONG)}"

    def session(self, *, livemode: bool) -> str:
        """A Checkout Session: whether it is about real money is in its name, and it is long."""
        return f"cs_{'live' if livemode else 'test'}_a1{self.letters(56)}"

    def coupon(self) -> str:
        """A coupon that was given no name of its own."""
        return self.letters(8)

    def promotion_code(self) -> str:
        return "".join(self._random.choices(string.ascii_uppercase + string.digits, k=8))
