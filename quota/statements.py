"""The statement of one account: its lines with what the records tell about them, dues folded in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, select

from billing.books import BookState, read_book
from billing.lines import load_balance_sums, load_line_sums, load_posted, load_transfer_sums
from billing.posted import Posted, posted_by
from billing.sql import Db
from billing.sql import Statement as Sql
from billing.statement import Statement, Told, shaped, zero_line
from billing.sums import Check, Sums, differences
from billing.tables import RECORDS
from quota.dues import Due
from quota.grant_rows import GrantFacts, load_grant
from quota.ids import grant_id, lot_id
from quota.load import load_picture
from quota.records import attributes_of, record_facts, value_of
from quota.views import folded_dues

WORTH_TELLING: Final = ("plan", "subscription", "zone", "paid_use", "freeze", "unfreeze", "forget")
"""Records without lines that a reader of a statement wants to see."""

_RECORD: Final[Any] = RECORDS
_RECORDS: Final = Sql(
    select(_RECORD.c.seq, _RECORD.c.kind, _RECORD.c.at, _RECORD.c.body)
    .where(
        _RECORD.c.book_id == bindparam("book_id"),
        _RECORD.c.at >= bindparam("since"),
        _RECORD.c.at < bindparam("until"),
    )
    .order_by(_RECORD.c.seq)
)


def statement(db: Db, account: str, period: tuple[datetime, datetime], now: datetime) -> Statement:
    """Make the statement of an account for a period; an account without a book has an empty one."""
    book = read_book(db, account)
    if book is None:
        return shaped(account, period, 0, (), lambda _: Told(), lambda _: Check())
    dues = folded_dues(db, load_picture(db, book), max(now, book.at))
    folded = list(enumerate(dues, start=book.seq + 1))
    told = _Teller(db, book, period, folded)
    posted = [*load_posted(db, book.id, *period), *told.zero_lines]
    posted.sort(key=lambda line: line.seq)
    for seq, due in folded:
        if period[0] <= due.draft.at < period[1]:
            posted.extend(posted_by(due.draft, seq))
            if due.draft.kind in WORTH_TELLING:
                posted.append(zero_line(seq, due.draft.kind, due.draft.at))
    before = load_line_sums(db, None, period[0], book.id)
    for due in dues:
        if due.draft.at < period[0]:
            _add_lines(before, due)
    return shaped(
        account,
        period,
        before.credits,
        posted,
        told,
        lambda within: Check(tuple(_problems(db, book, period, dues, (before, within)))),
    )


def _problems(
    db: Db,
    book: BookState,
    period: tuple[datetime, datetime],
    dues: list[Due],
    lines: tuple[Sums, Sums],
) -> Iterator[str]:
    """Say where the lines disagree with the ledger's transfers, or with what the lots hold now."""
    since, until = period
    before = load_transfer_sums(db, None, since, book.id)
    within = load_transfer_sums(db, since, until, book.id)
    after = load_line_sums(db, until, None, book.id)
    units, deferred = load_balance_sums(db, book.id)
    for due in dues:
        ledger = before if due.draft.at < since else within if due.draft.at < until else None
        if ledger is None:
            _add_lines(after, due)
        else:
            for transfer in due.draft.transfers:
                ledger.add_transfer(transfer)
        # Lots do not know yet what is only due.
        change = Sums()
        _add_lines(change, due)
        units += change.credits
        for currency in change.currencies:
            deferred[currency] = deferred.get(currency, 0) + change.deferred_minor(currency)
    yield from differences(lines[0], before, "before the period")
    yield from differences(lines[1], within, "within the period")
    whole = Sums()
    for sums in (*lines, after):
        whole.add(sums)
    if whole.credits != units:
        yield f"all lines leave {whole.credits} credits available, the lots have {units}"
    for currency in sorted({*whole.currencies, *deferred}):
        if whole.deferred_minor(currency) != deferred.get(currency, 0):
            yield (
                f"all lines leave {whole.deferred_minor(currency)} {currency} (minor units) "
                f"unearned, lots and plans have {deferred.get(currency, 0)}"
            )


def _add_lines(sums: Sums, due: Due) -> None:
    for line in due.draft.lines:
        sums.add_line(line)


class _Teller:
    """Tells about lines what records and grants know."""

    def __init__(
        self,
        db: Db,
        book: BookState,
        period: tuple[datetime, datetime],
        folded: list[tuple[int, Due]],
    ) -> None:
        self._db, self._book = db, book
        self._facts: dict[int, Mapping[str, Any]] = {seq: due.draft.facts for seq, due in folded}
        self._grants: dict[int, tuple[GrantFacts, Mapping[str, Any]]] = {}
        self.zero_lines: list[Posted] = []
        for seq, kind, at, body in db.rows(
            _RECORDS, book_id=book.id, since=period[0], until=period[1]
        ):
            self._facts[seq] = json.loads(bytes(body))["facts"]
            if kind in WORTH_TELLING:
                self.zero_lines.append(zero_line(seq, kind, at))

    def __call__(self, posted: Posted) -> Told:
        line = posted.line
        lot = None if line.lot_no is None else lot_id(self._book.id, line.lot_no)
        detail = self._detail(posted.kind, self._facts.get(posted.seq, {}))
        if posted.grant_no is None:
            return Told(lot_id=lot, detail=detail)
        grant, facts = self._grant(posted.grant_no)
        taken = [part.units for part in grant.allocations if part.source == line.source]
        used, limit = self._window(posted, facts, sum(taken))
        return Told(
            grant_id=grant_id(self._book.id, posted.grant_no),
            lot_id=lot,
            member=self._value(posted.member) if posted.member else None,
            attributes=attributes_of(self._db, grant),
            weight=sum(taken) if taken else None,
            used_after=used,
            limit=limit,
            detail=detail,
        )

    def _grant(self, number: int) -> tuple[GrantFacts, Mapping[str, Any]]:
        if number not in self._grants:
            grant = load_grant(self._db, self._book.id, number)
            facts = self._facts.get(grant.seq)
            if facts is None:
                facts = record_facts(self._db, self._book.id, grant.seq)
            self._grants[number] = grant, facts
        return self._grants[number]

    @staticmethod
    def _window(
        posted: Posted, facts: Mapping[str, Any], taken: int
    ) -> tuple[int | None, int | None]:
        """Return what an allowance's window held right after the grant, and its limit, in units."""
        if posted.kind != "grant" or posted.line.lot_no is not None:
            return None, None
        for policy, outcome, used, limit, *_ in facts["findings"]:
            if policy == posted.line.source and outcome == "gave":
                return used + taken, limit
        return None, None

    def _detail(self, kind: str, facts: Mapping[str, Any]) -> str:
        match kind:
            case "purchase" | "credits":
                what = facts["pack"] or facts["origin"]
                return f"{what}, reference {facts['reference']}"
            case "refund":
                return f"reference {facts['reference']}"
            case "released":
                return str(facts["reason"] or "")
            case "attempt":
                return f"attempt {facts['attempt']}"
            case "plan":
                return str(facts["plan"] or "")
            case "subscription":
                return str(facts["standing"].get("plan", ""))
            case "invoice":
                return str(facts["invoice"])
            case "zone":
                return str(facts["zones"][-1][1] if len(facts["zones"]) > 1 else facts["zones"][0])
            case "paid_use":
                cap, per = facts["spend_cap_minor"], facts["spend_cap_per"]
                most = "" if cap is None else f", at most {cap} minor units per {per}"
                return f"{facts['paid_use']}{most}"
            case "freeze":
                return self._value(facts["reason"])
            case _:
                return ""

    def _value(self, hashed: str) -> str:
        return value_of(self._db, self._book.id, hashed)
