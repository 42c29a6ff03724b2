"""What a book's records so far say about its account: settings, open grants, how grants ended."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

from billing.book import GENESIS
from billing.books import BookState
from billing.discrepancy import Discrepancy, discrepancy
from billing.draft import Draft
from billing.entries import LINE_FIELDS, Entry, instant_of, parsed, values_of
from billing.plans import Invoice
from billing.sql import Db
from billing.stripe.top_ups import TopUp
from billing.verify import LedgerAudit
from policies.policy_set import PolicySet
from policies.request import Circumstances
from policies.window import Zones
from quota.again import Asking, asking_of, circumstances_of, grant_facts
from quota.grant_rows import GrantFacts
from quota.ids import parse_lot_id
from quota.lots_in_hand import LotsInHand
from quota.records import ERASED, record_body_bytes
from quota.versions import stored
from quota.windows import Usage

HOLD: Final = 0
LOT: Final = 1
REMEMBERED_MAX: Final = 1000
"""How many different questions of a book are remembered: its prompts may all be different."""

_TAKEN: Final = itemgetter(
    *map(LINE_FIELDS.index, ("source", "units", "counts_at", "currency", "spend_minor"))
)
K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class OpenHold:
    """A grant that has not ended."""

    grant: GrantFacts
    facts: Mapping[str, Any]
    expires_at: datetime
    started_at: datetime | None = None


class HowEnded(NamedTuple):
    """How a grant ended: its status, its record, and the units it was charged."""

    status: str
    seq: int
    units_charged: int


@dataclass(slots=True)
class BudgetSums:
    """What all books' records charged to budgets, in micro-dollars.

    By budget and start of its day, and again with the number of the block where it was charged to one.
    """

    spent: Counter[tuple[str, int]] = field(default_factory=Counter)
    of_blocks: Counter[tuple[str, int, int]] = field(default_factory=Counter)

    def add(self, charges: Iterable[Iterable[Any]]) -> None:
        """Add charges as records hold them.

        Raises:
            TypeError: they are none.
        """
        for name, day, micro_usd, *block in charges:
            if not (isinstance(name, str) and all(isinstance(n, int) for n in (day, *block))):
                raise TypeError("a charge is the name of a budget, a day, micro-dollars, a block")
            self.spent[name, day] += micro_usd
            for number in block:
                self.of_blocks[name, day, number] += micro_usd


class BookAudit:
    """One book, as its records so far leave it. Shared by all that checks records of its grants."""

    def __init__(
        self,
        db: Db,
        ledger: LedgerAudit,
        values: Mapping[str, str],
        budgets: BudgetSums,
        found: list[Discrepancy],
    ) -> None:
        """Begin with an account that has done nothing. `values`: what salted hashes stand for."""
        self._db, self.ledger, self.values = db, ledger, values
        self.budgets, self._found = budgets, found
        self.book_id = ledger.book_id
        self.settings = BookState(
            id=ledger.book_id,
            seq=0,
            head=GENESIS,
            at=datetime.min,  # noqa: DTZ901 - the ledger's audit keeps the time
            grants=0,
            lots=0,
            plan=None,
            zones=Zones(),
            paid_use=None,
            spend_cap_minor=None,
            spend_cap_per=None,
            frozen=None,
            tats={},
        )
        self.forgotten = False
        self.sales: dict[str, Any] = {}
        """Purchases by their id, as quota.audit.payments keeps them."""
        self.invoices: dict[str, Invoice] = {}
        """Invoices of plans by their id, as quota.audit.plans keeps them."""
        self.top_up: tuple[TopUp, int] | None = None
        self.usage = Usage()
        self.open: dict[int, OpenHold] = {}
        self.open_by_member: Counter[str] = Counter()
        self.ended: dict[int, HowEnded] = {}
        self.late: dict[int, int] = {}
        self.grant_seq: dict[int, int] = {}
        self.booked: Counter[int] = Counter()
        self.needed: dict[str, int] = {}
        self._told: dict[str, Circumstances] = {}
        self._askings: dict[tuple[Hashable, ...], Asking] = {}
        self._due: list[tuple[datetime, int, int]] = []
        self._policy_sets: dict[str, PolicySet] = {}

    # --- discrepancies ----------------------------------------------------------------------

    def say(self, entry: Entry, what: str, expected: object, found: object) -> None:
        """Report what a record says otherwise than earlier records make it."""
        self._found.append(discrepancy(self.book_id, entry.seq, what, expected, found))

    def same(self, entry: Entry, what: str, expected: object, found: object) -> bool:
        """Report it where the two are not the same."""
        if expected != found:
            self.say(entry, what, expected, found)
        return expected == found

    def same_draft(self, entry: Entry, draft: Draft) -> None:
        """Report where a record says otherwise than the rules would have drafted it."""
        grant = (draft.grant_no, draft.plan, draft.operation, draft.member)
        said = (entry.grant_no, entry.plan, entry.operation, entry.member)
        moves = (draft.once, draft.transfers, tuple(map(values_of, draft.lines)), draft.new_lots)
        if grant == said and moves == (
            entry.once,
            entry.transfers,
            entry.line_values,
            entry.lots,
        ):
            return
        self.same(entry, "grant, plan, operation and member", grant, said)
        self.same(entry, "key of the record", draft.once, entry.once)
        self.same(entry, "transfers", draft.transfers, entry.transfers)
        self.same(entry, "lines", draft.lines, entry.lines)
        self.same(entry, "new lots", draft.new_lots, entry.lots)

    # --- what the records say ---------------------------------------------------------------

    def policy_set(self, version: str) -> PolicySet:
        """Return the policy set of a version.

        Raises:
            InvalidRequest: it was never used here.
            PolicyError: it cannot be read here.
        """
        if version not in self._policy_sets:
            self._policy_sets[version] = stored(self._db, version)
        return self._policy_sets[version]

    def told(self, plan: str, facts: Mapping[str, Any]) -> Circumstances:
        """Return what a grant's record says the waterfall was told about the account."""
        key = repr((plan, facts["zones"], facts["paid_use"], facts["spend_cap"]))
        return _remembered(self._told, key, lambda: circumstances_of(plan, facts))

    def asking(self, grant: GrantFacts, facts: Mapping[str, Any], told: Circumstances) -> Asking:
        """Return what was asked for a grant, under which rules, and what these read.

        Raises:
            InvalidRequest: the policy version has no such plan or operation.
        """
        policy_set = self.policy_set(grant.policy_version)
        # Spelt, since equal values may be of different types: 1, true and 1.0.
        spelt = repr((grant.attributes, facts["consent"], told.paid_use, told.spend_cap))
        key = (grant.policy_version, grant.plan, grant.operation, grant.member, spelt, told.zones)
        return _remembered(
            self._askings, key, lambda: asking_of(grant, facts, policy_set, told, self.text_of)
        )

    def text_of(self, hashed: str) -> str:
        """Return the text behind a salted hash, unless it was erased."""
        return self.values.get(hashed, ERASED)

    def grant(self, number: int) -> tuple[GrantFacts, Mapping[str, Any]]:
        """Return a grant as its record says it was made, and all that the record says.

        Raises:
            LookupError: there is no such grant among the records so far.
        """
        if number in self.open:
            hold = self.open[number]
            return hold.grant, hold.facts
        seq = self.grant_seq[number]
        entry = parsed(seq, record_body_bytes(self._db, self.book_id, seq))
        return grant_facts(self.book_id, entry), entry.facts

    def lots_of(self, grant: GrantFacts) -> LotsInHand:
        """Return the lots that a grant took from, as they stand."""
        numbers = [parse_lot_id(part.lot_id)[1] for part in grant.allocations if part.lot_id]
        return self.lots_in_hand(numbers)

    def lots_in_hand(self, numbers: Iterable[int]) -> LotsInHand:
        """Return these lots as they stand."""
        return LotsInHand(None, self.book_id, (self.ledger.lots[n].lot for n in numbers))

    def take(self, entry: Entry) -> None:
        """Count the units that a record takes or gives back."""
        for values in entry.line_values:
            source, units, counts_at, currency, spend_minor = _TAKEN(values)
            if units and counts_at is not None:
                use = (source, entry.member, instant_of(counts_at), currency)
                self.usage.take(use, units, spend_minor)

    # --- what the records do ----------------------------------------------------------------

    def hold(self, hold: OpenHold) -> None:
        """Open a grant's hold."""
        number = hold.grant.number
        self.open[number] = hold
        self.open_by_member[hold.grant.member] += 1
        self.expires(HOLD, number, hold.expires_at)

    def end(self, number: int, ended: HowEnded) -> None:
        """End a grant."""
        hold = self.open.pop(number, None)
        if hold is not None:
            self.open_by_member[hold.grant.member] -= 1
        self.ended.setdefault(number, ended)

    def expires(self, kind: int, number: int, at: datetime) -> None:
        """Remember when a hold or a lot falls due."""
        heapq.heappush(self._due, (at, kind, number))

    def overdue(self, at: datetime) -> str | None:
        """Return what had fallen due by an instant and has not happened; None where nothing had."""
        plan_due = self.settings.plan_due
        if plan_due is not None and plan_due <= at:
            return f"what plans have earned, or their end, at {plan_due.isoformat()}"
        while self._due and self._due[0][0] <= at:
            expires_at, kind, number = self._due[0]
            if kind == HOLD and number in self.open:
                if self.open[number].expires_at == expires_at:
                    return f"the expiry of grant {number} at {expires_at.isoformat()}"
            elif kind == LOT and self.ledger.lots[number].lot.available > 0:
                return f"the expiry of lot {number} at {expires_at.isoformat()}"
            heapq.heappop(self._due)
        return None

    def open_grants(self, member: str | None) -> int:
        """Return how many grants are open, of the account or of one member."""
        return len(self.open) if member is None else self.open_by_member[member]


def _remembered(known: dict[K, V], key: K, find: Callable[[], V]) -> V:
    found = known.get(key)
    if found is None:
        if len(known) >= REMEMBERED_MAX:
            known.clear()
        found = known[key] = find()
    return found


Check = Callable[[BookAudit, Entry], None]
"""Checks one record against what the records before it say, and takes it over."""
