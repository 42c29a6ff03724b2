"""What Redis knows of one account, as the policies see it: the same decision is made from it as from SQL's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from policies.state import History, LotView, OpenGrant, Use
from quota.prefilter.facts import Facts


@dataclass(frozen=True, slots=True)
class Taken:
    """Units that a grant took. `print`: its key's; `lot`: (number, what they cost in minor units, currency)."""

    source: str
    at: datetime
    units: int
    member: bytes
    print: bytes
    lot: tuple[int, int, str] | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """An open grant: until when, whose, whether its expiry returns units, and whether some came from lots."""

    expires_at: datetime
    member: bytes
    print: bytes
    returns: bool
    from_lots: bool = False


@dataclass(frozen=True, slots=True)
class AccountState:
    """What SQL says of an account.

    `seq`: of the book's last record; `at`: its time. `rates`: (policy, member) to the theoretical arrival time and its
    scale; member None: the whole account's. `keys`: fingerprints of keys of grants; `partial`: some are not. `reach`:
    how far back all usage is here, in microseconds.
    """

    seq: int = 0
    at: datetime | None = None
    facts: Facts = field(default_factory=Facts)
    book_id: int = 0
    rates: Mapping[tuple[str, bytes | None], tuple[int, int]] = field(default_factory=dict)
    lots: tuple[LotView, ...] = ()
    leases: tuple[Lease, ...] = ()
    uses: tuple[Taken, ...] = ()
    keys: tuple[bytes, ...] = ()
    partial: bool = False
    reach: int = 0

    def history(self) -> History:
        """Return the rows that policies read."""
        returns = {lease.print: lease.expires_at for lease in self.leases if lease.returns}
        uses = tuple(
            Use(
                use.source,
                use.at,
                use.units,
                use.member.hex(),
                use.lot[1] if use.lot else 0,
                use.lot[2] if use.lot else None,
                f"lot_{self.book_id}_{use.lot[0]}" if use.lot else None,
                returns.get(use.print),
            )
            for use in self.uses
        )
        rates = {
            (policy, None if member is None else member.hex()): tat
            for (policy, member), tat in self.rates.items()
        }
        grants = tuple(OpenGrant(lease.expires_at, lease.member.hex()) for lease in self.leases)
        return History(uses=uses, grants=grants, all_lots=self.lots, rates=rates)
