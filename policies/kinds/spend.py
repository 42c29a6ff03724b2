"""Money spent on paid units per window, in minor units: fixed when granted as ceil(price x units / N) of each lot."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from policies.decision import Reason
from policies.fields import LengthOfTime, MinorByCurrency
from policies.instants import Length
from policies.kinds.credits import slices
from policies.kinds.windowed import Windowed
from policies.policy import Asked, Check, Limit, Source
from policies.state import History, Read, State, UsageRead


class SpendLimit(Windowed, Limit):
    """At most `limit` minor units of money per window. Consulted with credits, which it makes be passed over."""

    kind: Literal["spend"] = "spend"
    limit: MinorByCurrency = Field(
        description="Minor units of money (2000 is $20.00), or {usd: 2000, eur: 1800}. Other currencies stay unused."
    )
    per: LengthOfTime = Field(description="The window's length: 24h, 7d, 1mo, ...")

    reason: ClassVar[str] = Reason.SPEND_EXCEEDED
    counts_units: ClassVar[bool] = True

    @property
    def length(self) -> Length:
        """The window's length."""
        return self.per

    @property
    def is_guard(self) -> bool:
        """It is consulted with paid sources only."""
        return True

    def guards(self, source: Source) -> bool:
        """Whether using this source is paid use."""
        return source.paid

    def reads(self, asked: Asked) -> tuple[Read, ...]:
        """The money spent within its window, by currency."""
        return tuple(self._read(asked, currency) for currency in self._limits(asked))

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare what was spent with the limit, in the currency that decides."""
        limits = self._limits(asked)
        cost = self._cost(asked, state, now)
        foreign = next(
            (currency for currency in cost if currency not in limits and cost[currency]), None
        )
        if foreign is not None:
            return Check(used=0, limit=0, asked=cost[foreign], ok=False)
        checks = []
        for currency, limit in limits.items():
            used, asked_minor = state.read(self._read(asked, currency), now), cost[currency]
            checks.append(
                Check(used, limit, asked_minor, ok=asked_minor == 0 or used + asked_minor <= limit)
            )
        return min(checks, key=lambda check: (check.ok, -check.asked))

    def room(self, asked: Asked, state: State, now: datetime) -> int:
        """Return how many of the units asked for can still be paid: cost grows with units, so by bisection."""
        low, high = 0, asked.units
        while low < high:
            units = (low + high + 1) // 2
            if self.check(asked._replace(units=units), state, now).ok:
                low = units
            else:
                high = units - 1
        return low

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:
        """Return when any money leaves the window, or lots of another price may be next to be used."""
        chances = [
            history.falls_to(self._read(asked, currency), limit - 1, now)
            for currency, limit in self._limits(asked).items()
        ]
        return min(
            (
                at
                for at in (*chances, history.next_expiry(now), history.next_lot_expiry(now))
                if at is not None
            ),
            default=None,
        )

    def _limits(self, asked: Asked) -> dict[str, int]:
        # In order of currency: files that differ in the order of keys alone give one answer.
        limits = self.limit if isinstance(self.limit, dict) else {asked.currency: self.limit}
        return dict(sorted(limits.items()))

    def _cost(self, asked: Asked, state: State, now: datetime) -> Counter[str]:
        cost: Counter[str] = Counter()
        for lot, units in slices(state.lots(now), asked.units):
            cost[lot.currency] += lot.price_of(units)
        return cost

    def _read(self, asked: Asked, currency: str) -> UsageRead:
        return UsageRead((), self.window_for(asked), self.member_for(asked), "spend", currency)
