"""Our books against Stripe's: what a reconciliation finds, and how one payment is held against its own. Pure.

Where the two disagree, both sides are said. Nothing here corrects anything: what was missed is heard as a webhook
would have brought it (`quota.methods.reconciling`), and what is left is for people to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

from billing.payments import Payment
from billing.stripe.events import PURCHASE_KEY
from billing.stripe.facts import DISPUTE, INTENT, MOVE, REFUND, SESSION, Facts, Terms, joined

FINDINGS_MAX: Final = 1000
"""How many findings of a kind a report lists. The others are counted."""

_FAILED: Final = ("failed", "canceled")
_ONLY_ON: Final = (SESSION, INTENT, REFUND, DISPUTE)
_SETTLED: Final = ("won", "lost", "warning_closed", "prevented")


@dataclass(frozen=True, slots=True)
class Applied:
    """What no webhook had brought, and what hearing of it did. `kind`: as Stripe names its objects."""

    kind: str
    id: str
    effect: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Where Stripe and our books disagree, with both sides in words.

    `kind`: what disagrees. `id`: what it is about, as Stripe names it, or our purchase. `purchase`: ours, where there
    is one.
    """

    kind: str
    id: str
    purchase: str | None
    theirs: str
    ours: str


@dataclass(frozen=True, slots=True)
class PayoutCheck:
    """A payout against what the books have posted for its transactions. Money in minor units of `currency`.

    `booked_minor`: what the books have cleared to the bank for it. `not_ours_minor`: what it holds of things that are
    plainly not ours. `carried_minor`: what an earlier payout that failed has left to it. `left_minor`: what stays on
    the clearing account for it.
    """

    id: str
    currency: str
    amount_minor: int
    booked_minor: int
    not_ours_minor: int
    carried_minor: int = 0

    @property
    def left_minor(self) -> int:
        """What is left on clearing for it, in minor units: nothing, where all of it is explained."""
        return self.amount_minor - self.booked_minor - self.not_ours_minor - self.carried_minor


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Movements on the balance at Stripe that are plainly not ours. `net_minor`: in minor units of `currency`."""

    what: str
    currency: str
    count: int
    net_minor: int


@dataclass(slots=True)
class Reconciliation:
    """What holding the books against Stripe has found.

    `since`, `until`: when what was looked at was made. `checked`: how many objects, by kind. `applied`: what no webhook
    had brought. `disagreements`: what is left. `payouts`: those that have arrived. `not_ours`: what no purchase of ours
    explains, and none should. Of each at most 1000 are listed: `applied_count` and `disagreement_count` count all.
    `walked`: up to when all was looked at before the run was interrupted.
    """

    since: datetime
    until: datetime
    walked: datetime | None = None
    checked: dict[str, int] = field(default_factory=dict)
    applied: list[Applied] = field(default_factory=list)
    applied_count: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)
    disagreement_count: int = 0
    payouts: list[PayoutCheck] = field(default_factory=list)
    not_ours: list[NotOurs] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether nothing is left that disagrees."""
        return not self.disagreement_count

    def count(self, kind: str, number: int) -> None:
        """Say that so many objects of a kind were looked at."""
        self.checked[kind] = self.checked.get(kind, 0) + number

    def apply(self, kind: str, about: str, effect: str) -> None:
        """Say what hearing of something did."""
        self.applied_count += 1
        if len(self.applied) < FINDINGS_MAX:
            self.applied.append(Applied(kind, about, effect))

    def disagree(self, found: Disagreement) -> None:
        """Say where the two disagree, once."""
        if found in self.disagreements:
            return
        self.disagreement_count += 1
        if len(self.disagreements) < FINDINGS_MAX:
            self.disagreements.append(found)

    def leave(self, what: str, currency: str, net_minor: int) -> None:
        """Say that something is not ours. `net_minor`: in minor units."""
        for place, each in enumerate(self.not_ours):
            if (each.what, each.currency) == (what, currency):
                sums = each.count + 1, each.net_minor + net_minor
                self.not_ours[place] = NotOurs(what, currency, *sums)
                return
        self.not_ours.append(NotOurs(what, currency, 1, net_minor))

    def since_then(self, until: datetime) -> None:
        """All is looked at until now: go on with what has come since."""
        self.walked, self.until = self.until, until

    def values(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        values = asdict(self)
        return values | {name: _iso(values[name]) for name in ("since", "until", "walked")}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Reconciliation:
        """Return what `values` has said."""
        kinds: Mapping[str, Any] = {
            "applied": Applied,
            "disagreements": Disagreement,
            "payouts": PayoutCheck,
            "not_ours": NotOurs,
        }
        lists = {name: [kind(**each) for each in values[name]] for name, kind in kinds.items()}
        times = {
            name: None if values[name] is None else datetime.fromisoformat(values[name])
            for name in ("since", "until", "walked")
        }
        return cls(**{**values, **lists, **times})


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def named_purchase(about: Mapping[str, Any]) -> str | None:
    """Return which purchase of ours an object's metadata says that it is for."""
    named = (about.get("metadata") or {}).get(PURCHASE_KEY)
    return named if isinstance(named, str) else None


def news(known: Facts, seen: Facts, now: int) -> Facts | None:
    """Return what is to be heard of what was seen just now; None: all of it is known.

    Args:
        known: what is known of the payment.
        seen: its objects as they are now, dated to when they were made: an event tells better when they changed.
        now: seconds since 1970. An object that has changed without another status is as it is now.
    """
    fresh: Facts = {}
    for kind, key, item in _each(seen):
        before = known.get(kind, {}).get(key)
        if before is None:
            # An offer that awaits its buyer says nothing yet.
            if kind != SESSION or item["status"] != "open":
                fresh.setdefault(kind, {})[key] = item
        elif _undated(before) != _undated(item) and not _is_back(kind, before, item):
            same = item["status"] == before["status"] and "at" in item
            fresh.setdefault(kind, {})[key] = {**item, "at": now} if same else item
    return fresh or None


def steps_back(purchase: str, known: Facts, seen: Facts, until: int) -> Iterator[Disagreement]:
    """Yield where we know more of an object than Stripe says now: nobody takes a payment or a refund back.

    `until`: seconds since 1970; what we have heard since may be younger than what was seen.
    """
    for kind, key, item in _each(seen):
        before = known.get(kind, {}).get(key)
        # That a payment on its way has failed only an event tells; and one that was declined may be tried again.
        if (
            before is None
            or kind not in _ONLY_ON
            or (kind, before["status"]) in ((SESSION, "failed"), (INTENT, "failed"))
        ):
            continue
        if before.get("at", 0) < until and _is_back(kind, before, item):
            yield Disagreement(kind, key, purchase, item["status"], before["status"])


def _each(facts: Facts) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for kind, items in facts.items():
        for key, item in items.items():
            yield kind, key, item


def _is_back(kind: str, before: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """Whether a status comes before another one in the order of its kind of object."""
    if item["status"] == before["status"]:
        return False
    later = joined({kind: {"": before}}, {kind: {"": item}})[kind][""]
    return bool(later["status"] == before["status"])


def _undated(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "at"}


def has_charge(facts: Facts) -> bool:
    """Whether the balance transaction of the payment itself is known."""
    return any(True for _ in _of_charge(facts))


def differences(
    purchase: str, facts: Facts, terms: Terms, state: Payment, until: int
) -> Iterator[Disagreement]:
    """Yield where what moved on the balance at Stripe is not what the books have for a payment.

    Args:
        purchase: its id.
        facts: all that is known of the payment.
        terms: what was offered.
        state: what was posted of it last.
        until: seconds since 1970: what has happened later may not have been looked at yet.
    """
    moves = facts.get(MOVE, {})
    for key, move in moves.items():
        if move["currency"] != terms.currency:
            theirs = f"{move['amount']} {move['currency']}, fee {move['fee']} (minor units)"
            yield Disagreement("currency", key, purchase, theirs, f"paid in {terms.currency}")
    ours = [move for move in moves.values() if move["currency"] == terms.currency]
    charged = sum(move["amount"] for move in _of_charge(facts) if move in ours)
    if ours and has_charge(facts) and state.paid and charged != state.total_minor:
        yield _amounts("amount", purchase, purchase, terms, (charged, state.total_minor))
    for key, refund in facts.get(REFUND, {}).items():
        moved = [move["amount"] for move in ours if move["of"] == key]
        booked = 0 if refund["status"] in _FAILED else -int(refund["amount"])
        if moved and sum(moved) != booked and refund.get("at", 0) < until:
            yield _amounts("refund", key, purchase, terms, (sum(moved), booked))
    for key, dispute in facts.get(DISPUTE, {}).items():
        moved = [move["amount"] for move in ours if move["of"] == key]
        booked = -int(dispute["amount"]) if dispute["status"] == "lost" else 0
        over = dispute["status"] in _SETTLED and dispute.get("at", 0) < until
        if moved and over and sum(moved) != booked:
            yield _amounts("dispute", key, purchase, terms, (sum(moved), booked))


def _amounts(
    kind: str, about: str, purchase: str, terms: Terms, sides: tuple[int, int]
) -> Disagreement:
    theirs, ours = (f"{each} {terms.currency} (minor units)" for each in sides)
    return Disagreement(kind, about, purchase, theirs, ours)


def _of_charge(facts: Facts) -> Iterator[Mapping[str, Any]]:
    """Yield the balance transactions of the payment itself, not of its refunds and disputes."""
    others = {*facts.get(REFUND, {}), *facts.get(DISPUTE, {})}
    yield from (move for move in facts.get(MOVE, {}).values() if move["of"] not in others)
