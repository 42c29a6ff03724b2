"""What the books know of an account apart from its usage, as short text: plan, zones, settings of paid use, freeze."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from billing.books import BookState, zones_from, zones_text
from policies.request import Circumstances, SpendCap
from policies.window import Zones

if TYPE_CHECKING:
    from policies.request import CapPeriod, PaidUse


_NOTHING_SET = (None, Zones(), None, None, False)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the books know of an account apart from its usage. The default: an account nothing was set for."""

    plan: str | None = None
    zones: Zones = Zones()
    paid_use: PaidUse | None = None
    cap: SpendCap | None = None
    frozen: bool = False
    text: str = field(default="", compare=False)
    """The facts as Redis keeps them; empty where nothing was set."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self._text())

    @classmethod
    def of(cls, book: BookState | None) -> Facts:
        """Return what a book says."""
        if book is None:
            return cls()
        told = book.circumstances(book.plan or "")
        return cls(book.plan, told.zones, told.paid_use, told.spend_cap, told.frozen)

    @classmethod
    def read(cls, text: str) -> Facts:
        """Read what `text` says."""
        if not text:
            return cls()
        plan, zones, paid_use, cap, frozen = cast("list[Any]", json.loads(text))
        limit = None if cap is None else SpendCap(cap[0], cast("CapPeriod", cap[1]))
        return cls(plan, zones_from(zones), paid_use, limit, frozen)

    def _text(self) -> str:
        if (self.plan, self.zones, self.paid_use, self.cap, self.frozen) == _NOTHING_SET:
            return ""
        cap = None if self.cap is None else [self.cap.minor, self.cap.per]
        values = [self.plan, zones_text(self.zones), self.paid_use, cap, self.frozen]
        return json.dumps(values, separators=(",", ":"))

    def circumstances(self, plan: str) -> Circumstances:
        """Return what the waterfall is told about the account."""
        return Circumstances(plan, self.zones, self.paid_use, self.cap, self.frozen)
