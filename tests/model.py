"""The reference: a model of the whole engine in dictionaries and lists, decided by the pure waterfall.

It shares nothing with `billing` and `quota`: no SQL, no transfers, no records. Each account is a few lists; money is
sliced by arithmetic of its own; what has fallen due is done at the beginning of every call. Answers are plain tuples
(tests/conformance/answers.py brings the engine's answers into the same form). Calls raise `Refused` with the name of
the error that the contract names.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import Any

from policies.advice import advise
from policies.decision import Decision
from policies.late import still_fits
from policies.policy_set import PolicySet
from policies.request import Circumstances, Request, SpendCap
from policies.state import History, LotView, OpenGrant, Use
from policies.waterfall import decide
from policies.window import Zones


class Refused(Exception):  # noqa: N818 - it stands for an error of the contract
    """What the engine raises: the name of its error."""


@dataclass
class Account:
    """One account: what it was told, what it took, what it has."""

    book: int
    at: datetime
    plan: str | None = None
    zones: Zones = field(default_factory=Zones)
    records: int = 0
    paid_use: Any = None
    cap: SpendCap | None = None
    frozen: bool = False
    grants: list[dict[str, Any]] = field(default_factory=list)
    lots: list[dict[str, Any]] = field(default_factory=list)
    uses: list[dict[str, Any]] = field(default_factory=list)
    rates: dict[tuple[str, str | None], tuple[int, int]] = field(default_factory=dict)
    money: Counter[str] = field(default_factory=Counter)
    gpu: Counter[str] = field(default_factory=Counter)

    def record(self, at: datetime) -> None:
        self.records += 1
        self.at = max(self.at, at)


class Model:
    """All accounts. `reached` counts the interesting things that have happened."""

    def __init__(self, policy_set: PolicySet) -> None:
        self.policy_set = policy_set
        self.accounts: dict[str, Account] = {}
        self.budgets: Counter[tuple[str, datetime]] = Counter()
        self.references: dict[tuple[str, str], Any] = {}
        self.reached: Counter[str] = Counter()

    # --- requests -----------------------------------------------------------------------------

    def admit(
        self,
        now: datetime,
        account: str,
        operation: str,
        attributes: Mapping[str, Any],
        key: str,
        plan: str | None = None,
        member: str | None = None,
        consent: bool | int = False,
    ) -> tuple[Any, ...]:
        book = self.accounts.get(account)
        grants = [] if book is None else book.grants
        grant = next((grant for grant in grants if grant["key"] == key), None)
        if book is not None and grant is not None:
            asked = grant["policy_set"].request(operation, attributes, None, consent=False)
            if (operation, asked.attributes, member) != grant["asked"]:
                self.reached["conflict"] += 1
                raise Refused("IdempotencyConflict")
            self.reached["replay"] += 1
            self.reached[f"replay of {self._status(book, grant, now)}"] += 1
            return ("grant", *self._seen(book, grant, now), True)
        looked = self._folded(account, now)
        now = max(now, looked.at) if looked else now
        chosen = plan or (looked.plan if looked else None) or self.policy_set.default_plan
        request = self.policy_set.request(operation, attributes, member, consent)
        rules = self.policy_set.rules(chosen, operation)
        circumstances = self._circumstances(looked, chosen)
        history = self._history(looked)
        decision = decide(request, rules, circumstances, history, now)
        if not decision.granted:
            self.reached[f"denied: {decision.reason}"] += 1
            advice = advise(self.policy_set, rules, request, circumstances, history, now)
            if advice.retry_at:
                self.reached["retry_at"] += 1
            self.reached.update(f"offered: {offer.kind}" for offer in advice.offers)
            told = (str(decision.reason), advice.retry_at, tuple(advice.offers))
            return ("denial", now, chosen, decision.findings, *told)
        book = self._write(account, now)
        grant = self._take(book, decision, now, chosen, request, key)
        return ("grant", *self._seen(book, grant, now), False)

    def start(self, now: datetime, grant_id: str) -> tuple[Any, ...]:
        return self._renew(now, grant_id, None)

    def extend(self, now: datetime, grant_id: str, by: timedelta) -> tuple[Any, ...]:
        return self._renew(now, grant_id, by)

    def settle(
        self,
        now: datetime,
        grant_id: str,
        gpu_seconds: Any = None,
        gpu: str | None = None,
        delivered: Mapping[str, Any] | None = None,
    ) -> tuple[Any, ...]:
        book, grant, now = self._found(now, grant_id)
        cost = self._cost(grant, gpu_seconds, gpu)
        kept = [units for *_, units in self._parts(grant)]
        if delivered is not None:
            kept = self._delivered(grant, delivered)
            if kept != [units for *_, units in self._parts(grant)]:
                self.reached["partial delivery"] += 1
        if grant["status"] == "expired":
            return self._late(book, grant, now, cost, kept, settled=True)
        return self._finish(book, grant, now, "settled", None, cost, kept)

    def release(
        self, now: datetime, grant_id: str, reason: str, gpu_seconds: Any = None
    ) -> tuple[Any, ...]:
        book, grant, now = self._found(now, grant_id)
        rule = grant["policy_set"].release_rule(reason)
        cost = self._cost(grant, gpu_seconds, None)
        charged = rule.units == "charge"
        kept = [units if charged else 0 for *_, units in self._parts(grant)]
        if grant["status"] == "expired":
            return self._late(book, grant, now, cost, kept, settled=False)
        return self._finish(book, grant, now, "released", reason, cost, kept)

    def add_gpu_cost(
        self, now: datetime, grant_id: str, gpu_seconds: Any, attempt: str
    ) -> tuple[Any, ...]:
        known = self._grant(grant_id)[1]["attempts"].get(attempt)
        if known not in (None, gpu_seconds):
            raise Refused("IdempotencyConflict")
        book, grant, now = self._found(now, grant_id)
        if known is not None:
            return (self._cost(grant, gpu_seconds, None),)
        cost = self._cost(grant, gpu_seconds, None)
        grant["attempts"][attempt] = gpu_seconds
        self._book_gpu(book, grant, now, cost or 0)
        book.record(now)
        return (cost,)

    # --- accounts -----------------------------------------------------------------------------

    def set_plan(self, now: datetime, account: str, plan: str) -> tuple[Any, ...]:
        book = self._write(account, now)
        if book.plan != plan:
            book.plan = plan
            book.record(max(now, book.at))
        return ()

    def set_timezone(self, now: datetime, account: str, timezone: str) -> tuple[Any, ...]:
        book = self._write(account, now)
        if book.zones.latest != timezone:
            now = max(now, book.at)
            changes = (*book.zones.changes, (now, timezone))
            fresh = book.records == 0
            book.zones = Zones(timezone) if fresh else Zones(book.zones.first, changes)
            book.record(now)
        return ()

    def set_paid_use(
        self, now: datetime, account: str, paid_use: str, cap: int | None, per: str
    ) -> tuple[Any, ...]:
        book = self._write(account, now)
        wanted = (paid_use, None if cap is None else SpendCap(cap, per))  # type: ignore[arg-type]
        if (book.paid_use, book.cap) != wanted:
            book.paid_use, book.cap = wanted
            book.record(max(now, book.at))
        return ()

    def freeze(self, now: datetime, account: str, frozen: bool) -> tuple[Any, ...]:
        book = self._write(account, now)
        if book.frozen != frozen:
            book.frozen = frozen
            book.record(max(now, book.at))
        return ()

    def sweep(self, now: datetime) -> tuple[Any, ...]:
        books = [book for book in self.accounts.values() if self._is_due(book, now)]
        return (sum(self._due(book, max(now, book.at)) for book in books),)

    # --- credits ------------------------------------------------------------------------------

    def purchase(self, now: datetime, account: str, pack: str, reference: str) -> tuple[Any, ...]:
        bought = self.policy_set.packs[pack]
        price = bought.price_in("usd", "usd").minor
        expires = None if bought.valid_for is None else bought.valid_for.after(now)
        return self._issue(
            now, account, ("purchase", reference), (account, pack), bought.units, price, expires
        )

    def add_credits(
        self, now: datetime, account: str, units: int, reference: str, expires: datetime | None
    ) -> tuple[Any, ...]:
        what = (account, units, expires)
        return self._issue(now, account, ("promotion", reference), what, units, 0, expires)

    def refund(self, now: datetime, lot_id: str, reference: str) -> tuple[Any, ...]:
        _, book_id, number = lot_id.split("_")
        book = next((each for each in self.accounts.values() if each.book == int(book_id)), None)
        if book is None or int(number) > len(book.lots):
            raise Refused("UnknownLot")
        lot = book.lots[int(number) - 1]
        known = self.references.get(("refund", reference))
        if known is not None and known[0] != lot_id:
            raise Refused("IdempotencyConflict")
        if known is None and lot["refunded"]:
            raise Refused("InvalidRequest")
        now = max(now, book.at)
        self._due(book, now)
        if known is not None:
            return (*known[1], False)
        if lot["held"]:
            self.reached["refund with open holds"] += 1
        units = available(lot)
        amount = self._remove(book, lot, units, "refunded")
        lot["refunded"] = True
        book.record(now)
        self.references["refund", reference] = (lot_id, (units, amount))
        return (units, amount, True)

    # --- questions ----------------------------------------------------------------------------

    def get(self, now: datetime, grant_id: str) -> tuple[Any, ...]:
        book, grant = self._grant(grant_id)
        folded = self._peek(book, now)
        return self._seen(folded, folded.grants[grant["number"] - 1], now)

    def balance(self, now: datetime, account: str) -> tuple[Any, ...]:
        book = self._folded(account, now)
        now = max(now, book.at) if book else now
        plan = (book.plan if book else None) or self.policy_set.default_plan
        rules = self.policy_set.rules(plan, "clip")
        circumstances = self._circumstances(book, plan)
        asked = rules.asked_for_nothing(Request("clip", {}), circumstances)
        history = self._history(book)
        allowances = []
        for source in rules.sources:
            for read in [] if source.paid else source.reads(asked):
                used, limit = history.read(read, now), source.units  # type: ignore[attr-defined]
                back = history.next_return(read, now)  # type: ignore[arg-type]
                allowances.append((source.label, used, max(0, limit - used), back))
        lots = {
            f"lot_{book.book}_{lot['number']}": (available(lot), lot["held"])
            for lot in (book.lots if book else ())
            if book and available(lot) and not lot["refunded"]
        }
        held = [grant for grant in (book.grants if book else ()) if grant["status"] == "held"]
        return (
            tuple(allowances),
            lots,
            sum(units for grant in held for *_, units in self._parts(grant)),
            len(held),
        )

    def money(self, account: str) -> tuple[int, ...]:
        """Return revenue, breakage and refunds in minor units, and GPU cost reported and not, as written down."""
        book = self.accounts.get(account)
        if book is None:
            return (0, 0, 0, 0, 0)
        money = [book.money[name] for name in ("revenue", "breakage", "refunded")]
        return (*money, book.gpu["known"], book.gpu["unreported"])

    def is_live(self, now: datetime, grant_id: str) -> bool:
        """Return whether a grant is held and has not expired."""
        return self._status(*self._grant(grant_id), now) == "held"

    def instants(self) -> list[datetime]:
        """Return the instants at which something will change by itself."""
        found = []
        for book in self.accounts.values():
            found += [grant["expires"] for grant in book.grants if grant["status"] == "held"]
            found += [lot["expires"] for lot in book.lots if lot["expires"] and available(lot)]
            found += [use["at"] + timedelta(hours=24) for use in book.uses if use["units"]]
        return found

    # --- inside: dues -------------------------------------------------------------------------

    def _due(self, book: Account, now: datetime) -> int:
        """Do what has fallen due, in order of instants, holds before lots. Return how many things there were."""
        floor, done = book.at, 0
        due: list[tuple[datetime, int, int]] = [
            (max(grant["expires"], floor), 0, grant["number"])
            for grant in book.grants
            if grant["status"] == "held" and grant["expires"] <= now
        ]
        due += [
            (max(lot["expires"], lot["created"], floor), 1, lot["number"])
            for lot in book.lots
            if lot["expires"] is not None and lot["expires"] <= now
        ]
        for at, kind, number in sorted(due):
            if kind == 0:
                grant = book.grants[number - 1]
                returns = grant["returns"]
                kept = [0 if returns else units for *_, units in self._parts(grant)]
                self._end(book, grant, at, "expired", kept, ours=None)
                grant["cost"], grant["reported"] = grant["estimate"], False
                book.gpu["unreported"] += grant["estimate"]
                self.reached["expiry during hold"] += 1
            elif not available(book.lots[number - 1]):
                continue
            else:
                lot = book.lots[number - 1]
                self._remove(book, lot, available(lot), "breakage")
                self.reached["lot expired"] += 1
            book.record(at)
            done += 1
        return done

    @staticmethod
    def _is_due(book: Account, now: datetime) -> bool:
        holds = (grant["expires"] for grant in book.grants if grant["status"] == "held")
        lots = (lot["expires"] for lot in book.lots if lot["expires"] and available(lot))
        return any(at <= now for at in (*holds, *lots))

    def _write(self, account: str, now: datetime) -> Account:
        """Open the account where there is none, and do what has fallen due on it."""
        if account not in self.accounts:
            self.accounts[account] = Account(len(self.accounts) + 1, now)
        book = self.accounts[account]
        self._due(book, max(now, book.at))
        return book

    def _folded(self, account: str, now: datetime) -> Account | None:
        book = self.accounts.get(account)
        return None if book is None else self._peek(book, now)

    def _peek(self, book: Account, now: datetime) -> Account:
        """Return the account as it stands now, without writing anything down."""
        reached, self.reached = self.reached, Counter()
        budgets, self.budgets = self.budgets, self.budgets.copy()
        fixed = [each for g in book.grants for each in (g["policy_set"], g["decision"])]
        folded = copy.deepcopy(book, {id(each): each for each in fixed})
        self._due(folded, max(now, book.at))
        folded.at = book.at
        self.reached, self.budgets = reached, budgets
        return folded

    # --- inside: state ------------------------------------------------------------------------

    def _circumstances(self, book: Account | None, plan: str) -> Circumstances:
        if book is None:
            return Circumstances(plan)
        return Circumstances(plan, book.zones, book.paid_use, book.cap, book.frozen)

    def _history(self, book: Account | None) -> History:
        budgets = dict(self.budgets)
        if book is None:
            return History(budgets=budgets)
        returning = {
            grant["number"]: grant["expires"]
            for grant in book.grants
            if grant["status"] == "held" and grant["returns"]
        }
        uses = [
            Use(
                use["source"],
                use["at"],
                use["units"],
                use["member"],
                use["spend"],
                use["currency"],
                use["lot"] and f"lot_{book.book}_{use['lot']}",
                returning.get(use["grant"]),
            )
            for use in book.uses
            if use["units"]
        ]
        lots = [
            LotView(
                f"lot_{book.book}_{lot['number']}",
                lot["units"],
                lot["price"],
                "usd",
                available(lot),
                0,
                lot["expires"],
                lot["created"],
                lot["number"],
            )
            for lot in book.lots
            if not lot["refunded"] and (available(lot) or lot["held"])
        ]
        held = [grant for grant in book.grants if grant["status"] == "held"]
        grants = [OpenGrant(grant["expires"], grant["asked"][2] or "") for grant in held]
        return History(tuple(uses), tuple(grants), tuple(lots), dict(book.rates), budgets)

    def _grant(self, grant_id: str) -> tuple[Account, dict[str, Any]]:
        _, book_id, number = grant_id.split("_")
        for book in self.accounts.values():
            if book.book == int(book_id) and int(number) <= len(book.grants):
                return book, book.grants[int(number) - 1]
        raise Refused("UnknownGrant")

    def _found(self, now: datetime, grant_id: str) -> tuple[Account, dict[str, Any], datetime]:
        book, grant = self._grant(grant_id)
        now = max(now, book.at)
        self._due(book, now)
        return book, grant, now

    def _status(self, book: Account, grant: dict[str, Any], now: datetime) -> str:
        if grant["status"] == "held" and grant["expires"] <= max(now, book.at):
            return "expired"
        return str(grant["status"])

    def _seen(self, book: Account, grant: dict[str, Any], now: datetime) -> tuple[Any, ...]:
        """Return what the engine tells about a grant."""
        decision: Decision = grant["decision"]
        return (
            f"gr_{book.book}_{grant['number']}",
            grant["at"],
            grant["plan"],
            grant["asked"][2],
            grant["policy_set"].version,
            decision.allocations,
            decision.findings,
            grant["estimate"],
            self._status(book, grant, now),
        )

    @staticmethod
    def _parts(grant: dict[str, Any]) -> list[tuple[str, int | None, int]]:
        """Return the allocations: source, number of the lot, units."""
        return [
            (part.source, part.lot_id and int(part.lot_id.split("_")[2]), part.units)
            for part in grant["decision"].allocations
        ]

    # --- inside: taking -----------------------------------------------------------------------

    def _take(
        self,
        book: Account,
        decision: Decision,
        now: datetime,
        plan: str,
        request: Request,
        key: str,
    ) -> dict[str, Any]:
        operation = self.policy_set.operation(request.operation)
        grant: dict[str, Any] = {
            "number": len(book.grants) + 1,
            "key": key,
            "asked": (request.operation, request.attributes, request.member),
            "at": now,
            "plan": plan,
            "policy_set": self.policy_set,
            "decision": decision,
            "estimate": decision.gpu_cost_micro_usd,
            "expires": operation.hold.queued.after(now),
            "started": None,
            "returns": self.policy_set.on_expire == "return_units",
            "status": "held",
            "booked": 0,
            "attempts": {},
            "late": None,
            "budgets": [],
        }
        book.grants.append(grant)
        for part in decision.allocations:
            lot = part.lot_id and int(part.lot_id.split("_")[2])
            if lot:
                book.lots[lot - 1]["held"] += part.units
            book.uses.append(
                {
                    "grant": grant["number"],
                    "source": part.source,
                    "at": now,
                    "units": part.units,
                    "member": request.member or "",
                    "spend": part.price_minor,
                    "currency": part.currency,
                    "lot": lot,
                }
            )
        if len([part for part in decision.allocations if part.lot_id]) > 1:
            self.reached["multi-lot hold"] += 1
        if len({part.source for part in decision.allocations}) > 1:
            self.reached["split across sources"] += 1
        for read, tat in decision.rates:
            book.rates[read.policy, read.member] = (tat, read.scale)
        if grant["estimate"]:
            for budget in decision.budgets:
                grant["budgets"].append(budget.budget)
                self.budgets[budget.budget, budget.window.bounds(now)[0]] += grant["estimate"]
        book.record(now)
        return grant

    def _renew(self, now: datetime, grant_id: str, by: timedelta | None) -> tuple[Any, ...]:
        book, grant, now = self._found(now, grant_id)
        if grant["status"] != "held":
            self.reached["GrantEnded"] += 1
            raise Refused("GrantEnded")
        before = (grant["expires"], grant["started"])
        if by is not None:
            grant["expires"] = max(grant["expires"], now + by)
        else:
            running = grant["policy_set"].operation(grant["asked"][0]).hold.running.after(now)
            again = grant["started"] is not None
            grant["expires"] = max(grant["expires"], running) if again else running
            grant["started"] = grant["started"] or now
        if (grant["expires"], grant["started"]) != before:
            book.record(now)
        return (*self._seen(book, grant, now), grant["expires"])

    def _issue(
        self,
        now: datetime,
        account: str,
        reference: tuple[str, str],
        what: tuple[Any, ...],
        units: int,
        price: int,
        expires: datetime | None,
    ) -> tuple[Any, ...]:
        known = self.references.get(reference)
        if known is not None and known[0] != what:
            # The engine has opened no account for it, but what was due stays due.
            raise Refused("IdempotencyConflict")
        bought = now
        book = self._write(account, now)
        now = max(now, book.at)
        if known is not None:
            self.reached["purchase replayed"] += 1
            return (*known[1], True)
        lot = {
            "number": len(book.lots) + 1,
            "units": units,
            "price": price,
            "created": bought if reference[0] == "purchase" else now,
            "expires": expires,
            "used": 0,
            "gone": 0,
            "held": 0,
            "refunded": False,
        }
        book.lots.append(lot)
        book.record(now)
        told = (f"lot_{book.book}_{lot['number']}", units, price, expires)
        self.references[reference] = (what, told)
        return (*told, False)

    # --- inside: ends -------------------------------------------------------------------------

    def _cost(self, grant: dict[str, Any], seconds: Any, gpu: str | None) -> int | None:
        if seconds is None:
            return None
        name = gpu or grant["policy_set"].operation(grant["asked"][0]).gpu_cost.gpu
        hourly = Fraction(grant["policy_set"].gpus[name].usd_per_hour)
        return ceil(Fraction(seconds) * hourly * 1_000_000 / 3600)

    def _delivered(self, grant: dict[str, Any], delivered: Mapping[str, Any]) -> list[int]:
        policy_set: PolicySet = grant["policy_set"]
        operation = policy_set.operation(grant["asked"][0])
        attributes = operation.normalise({**grant["asked"][1], **delivered})
        rules = policy_set.rules(grant["plan"], grant["asked"][0])
        weights = {source.label: rules.units(source, attributes) for source in rules.sources}
        left, kept = Fraction(1), []
        for name, _, units in self._parts(grant):
            kept.append(min(units, ceil(left * weights[name])))
            left = max(Fraction(0), left - Fraction(kept[-1], weights[name]))
        return kept

    def _finish(
        self,
        book: Account,
        grant: dict[str, Any],
        now: datetime,
        status: str,
        reason: str | None,
        cost: int | None,
        kept: list[int],
    ) -> tuple[Any, ...]:
        if grant["status"] != "held":
            return self._told(grant, made=False)
        rule = grant["policy_set"].release_rule(reason) if reason else None
        ours = rule.grace.after(now) if rule is not None and rule.ours else None
        self._end(book, grant, now, status, kept, ours=ours)
        grant["cost"] = grant["estimate"] if cost is None else cost
        grant["reported"] = cost is not None
        self._book_gpu(book, grant, now, grant["cost"])
        book.record(now)
        return self._told(grant, made=True)

    def _told(self, grant: dict[str, Any], made: bool) -> tuple[Any, ...]:
        late = grant["late"] or (0, grant["cost"], grant["reported"])
        return (
            grant["status"],
            made,
            grant["status"] == "expired",
            grant["charged"] + late[0],
            late[1],
            late[2],
        )

    def _end(
        self,
        book: Account,
        grant: dict[str, Any],
        at: datetime,
        status: str,
        kept: list[int],
        ours: datetime | None,
    ) -> None:
        grant["status"], grant["charged"] = status, sum(kept)
        uses = [use for use in book.uses if use["grant"] == grant["number"]]
        for (_, number, units), keep, use in zip(self._parts(grant), kept, uses, strict=True):
            use["units"] = keep
            if number is None:
                continue
            lot = book.lots[number - 1]
            use["spend"] = ceil(Fraction(lot["price"] * keep, lot["units"]))
            lot["held"] -= units
            book.money["revenue"] += earned(lot, lot["used"] + keep) - earned(lot, lot["used"])
            lot["used"] += keep
            self._return(book, lot, units - keep, at, ours)

    def _return(
        self,
        book: Account,
        lot: dict[str, Any],
        units: int,
        at: datetime,
        ours: datetime | None,
    ) -> None:
        """Units are back in their lot: if it has died meanwhile, they share its fate."""
        dead = lot["expires"] is not None and lot["expires"] <= at
        if not units or not (dead or lot["refunded"]):
            return
        if lot["refunded"]:
            self.reached["lot died while held: refunded"] += 1
            self._remove(book, lot, units, "refunded")
        elif ours is None:
            self.reached["lot died while held: expired"] += 1
            self._remove(book, lot, units, "breakage")
        else:
            self.reached["lot died while held: ours"] += 1
            price = self._remove(book, lot, units, "carried over")
            fresh = {"number": len(book.lots) + 1, "units": units, "price": price}
            zero = {"used": 0, "gone": 0, "held": 0, "refunded": False}
            book.lots.append({**fresh, "created": at, "expires": ours, **zero})

    def _late(
        self,
        book: Account,
        grant: dict[str, Any],
        now: datetime,
        cost: int | None,
        kept: list[int],
        settled: bool,
    ) -> tuple[Any, ...]:
        self.reached["late end"] += 1
        if grant["late"] is not None:
            return self._told(grant, made=False)
        wanted = [
            part._replace(units=units)
            for part, units in zip(grant["decision"].allocations, kept, strict=True)
            if units
        ]
        charges = settled and not grant["charged"] and self._can_charge(book, grant, now, wanted)
        if cost is None and not (charges and wanted):
            return self._told(grant, made=False)
        if cost is not None:
            book.gpu["unreported"] -= grant["estimate"]
            self._book_gpu(book, grant, now, cost)
        units = 0
        for part in wanted if charges else ():
            units += part.units
            number = part.lot_id and int(part.lot_id.split("_")[2])
            spend = 0
            if number:
                lot = book.lots[number - 1]
                before = earned(lot, lot["used"])
                lot["used"] += part.units
                book.money["revenue"] += earned(lot, lot["used"]) - before
                spend = ceil(Fraction(lot["price"] * part.units, lot["units"]))
            use = {"grant": None, "source": part.source, "at": now, "units": part.units}
            about = {"member": grant["asked"][2] or "", "currency": part.currency}
            book.uses.append({**use, **about, "spend": spend, "lot": number})
        if units:
            self.reached["late settle charged"] += 1
        booked = grant["estimate"] if cost is None else cost
        grant["late"] = (units, booked, cost is not None)
        book.record(now)
        return self._told(grant, made=False)

    def _can_charge(
        self, book: Account, grant: dict[str, Any], now: datetime, wanted: list[Any]
    ) -> bool:
        policy_set: PolicySet = grant["policy_set"]
        if policy_set.on_late_settle != "charge_if_available" or book.frozen:
            return False
        for part in wanted:
            if part.lot_id:
                lot = book.lots[int(part.lot_id.split("_")[2]) - 1]
                dead = lot["refunded"] or (lot["expires"] is not None and lot["expires"] <= now)
                if dead or available(lot) < part.units:
                    return False
        operation, attributes, member = grant["asked"]
        request = Request(operation, attributes, member, consent=True)
        rules = policy_set.rules(grant["plan"], operation)
        circumstances = self._circumstances(book, grant["plan"])
        return still_fits(rules, request, circumstances, wanted, self._history(book), now)

    # --- inside: money ------------------------------------------------------------------------

    def _remove(self, book: Account, lot: dict[str, Any], units: int, to: str) -> int:
        left = lot["units"] - lot["gone"]
        amount = earned(lot, left) - earned(lot, left - units)
        lot["gone"] += units
        book.money[to] += amount
        return amount

    def _book_gpu(self, book: Account, grant: dict[str, Any], now: datetime, cost: int) -> None:
        """Book a known GPU cost, and debit to the grant's budgets what passes its estimate."""
        before = max(grant["booked"], grant["estimate"])
        book.gpu["known"] += cost
        grant["booked"] += cost
        over = grant["booked"] - before
        for name in grant["budgets"] if over > 0 else ():
            window = grant["policy_set"].budgets[name].read.window
            self.budgets[name, window.bounds(now)[0]] += over
            self.reached["budget overrun"] += 1


def available(lot: dict[str, Any]) -> int:
    """Return the units of a lot that can be granted."""
    return int(lot["units"] - lot["used"] - lot["gone"] - lot["held"])


def earned(lot: dict[str, Any], units: int) -> int:
    """Return what so many units of a lot are worth in minor units, rounded down: the first are the cheapest."""
    return int(lot["price"] * units // lot["units"])
