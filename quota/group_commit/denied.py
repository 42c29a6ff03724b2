"""Who was denied last: of them a batch does not lock the account before it has looked.

Most calls that reach a database are granted, and for these a look costs a third of all that a grant costs in a batch.
An account that was denied is likely to be denied again, however hard it knocks: it takes a lock once, not each time.
"""

from __future__ import annotations

from typing import Final

ACCOUNTS_MAX: Final = 50_000
"""How many names are kept. Whoever falls out takes a lock once more."""


class LastDenied:
    """The accounts whose last answer was a denial. Safe for several threads: it may forget one, which costs little."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._accounts: dict[str, None] = {}

    def __contains__(self, account: str) -> bool:
        return account in self._accounts

    def note(self, account: str, *, granted: bool) -> None:
        """Note an answer."""
        if granted:
            self._accounts.pop(account, None)
        else:
            if len(self._accounts) >= ACCOUNTS_MAX:
                self._accounts.clear()
            self._accounts[account] = None
