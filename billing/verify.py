"""Verifying one book's ledger: re-derived from its chained records alone, compared with the tables.

Transfers are applied in order to lots that begin with nothing: units and money never go below zero,
and after every record a lot's unearned money is what its used and removed units leave of its price.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import bindparam, select

from billing import chart
from billing import lots as lot_rules
from billing.chain import Link
from billing.discrepancy import Discrepancy, compared, discrepancy
from billing.draft import LotMark
from billing.entries import LINE_FIELDS, Entry
from billing.lots import Lot
from billing.payments import PAYMENT
from billing.plans import INVOICE
from billing.purchases import PURCHASE, REFUND
from billing.sql import Db, Statement
from billing.sums import MONEY_FIELDS, Sums, differences, sums_of
from billing.tables import ASSETS, BOOKS, LEDGER_ACCOUNTS, LOT_BALANCES, LOTS, PAYMENT_REFERENCES
from billing.transfer import LotDelta, Phase, Transfer, lot_deltas

GPU_FIELDS: Final = ("gpu_micro_usd", "gpu_unreported_micro_usd")
LOT_COLUMNS: Final = (
    *("seq", "origin", "reference", "pack", "units", "price_minor", "currency"),
    *("priority", "created_at", "expires_at"),
)
MARKS: Final = ("returned_minor", "charged_back_minor", "disputed")
BALANCE_COLUMNS: Final = (*LotDelta.__slots__, *MARKS, "refunded", "open", "expires_at")

_GPU_BOOKED: Final = frozenset(chart.GPU_ACCOUNTS) - {chart.GPU_ACCRUED}
_GPU_COST: Final = itemgetter(*map(LINE_FIELDS.index, GPU_FIELDS))
_NOT_GPU: Final = itemgetter(*map(LINE_FIELDS.index, ("lot_units", *MONEY_FIELDS)))


def _of_book(table: Any, *columns: str) -> Statement:
    wanted = select(*(table.c[name] for name in columns))
    return Statement(wanted.where(table.c.book_id == bindparam("book_id")))


_LOTS: Final = _of_book(LOTS, "number", *LOT_COLUMNS)
_BALANCES: Final = _of_book(LOT_BALANCES, "lot_no", *BALANCE_COLUMNS)
_ACCOUNTS: Final = _of_book(LEDGER_ACCOUNTS, "id", "asset")
_REFERENCES: Final = _of_book(PAYMENT_REFERENCES, "origin", "reference", "lot_no", "seq")
_BOOK: Final = Statement(
    select(BOOKS.c.seq, BOOKS.c.head, BOOKS.c.at, BOOKS.c.lots).where(
        BOOKS.c.id == bindparam("book_id")
    )
)
_ASSETS: Final = Statement(select(ASSETS.c.code, ASSETS.c.scale))


@dataclass(slots=True)
class LotBooks:
    """A lot as the records so far have left it: the rules' view of it, and its balance."""

    lot: Lot
    seq: int
    delta: LotDelta

    @property
    def left_minor(self) -> int:
        """Unearned money, in minor units."""
        return self.delta.money_in_minor - self.delta.money_out_minor


class LedgerAudit:
    """Re-derives one book's ledger, record by record; `finish` compares it with the tables."""

    def __init__(self, db: Db, book_id: int, found: list[Discrepancy]) -> None:
        """Begin with an empty book. Discrepancies are added to `found`."""
        self._db, self.book_id, self._found = db, book_id, found
        self.lots: dict[int, LotBooks] = {}
        self.available: set[int] = set()
        self.held: dict[tuple[int | None, int], int] = {}
        self.at: datetime | None = None
        self._accounts: dict[str, str] = dict(chart.BOOK_ACCOUNTS)
        self._references: dict[tuple[str, str], tuple[int, int]] = {}
        self._once: dict[str, int] = {}

    def lot(self, number: int) -> Lot:
        """Return a lot as the records so far have left it.

        Raises:
            KeyError: there is none.
        """
        return self.lots[number].lot

    def apply(self, entry: Entry) -> None:
        """Apply one record, in order."""
        self._check_times(entry)
        if entry.once is not None:
            first = self._once.setdefault(entry.once, entry.seq)
            if first != entry.seq:
                self._say(entry, f"key `{entry.once}`", "once", f"again, after record {first}")
        for lot in entry.lots:
            self._add_lot(entry, lot)
        if entry.kind in (PAYMENT, INVOICE):
            self._open_payments(str(entry.facts["currency"]))
        if not _books_gpu_alone(entry):
            self._apply_transfers(entry)
        if entry.mark is not None:
            self._mark(entry, entry.mark)
        if entry.kind == REFUND and entry.closes_lot in self.lots:
            books = self.lots[entry.closes_lot]
            books.lot = replace(books.lot, refunded=True)
            self._references[REFUND, str(entry.facts["reference"])] = entry.closes_lot, entry.seq

    def finish(self, link: Link) -> None:
        """Compare what the records leave with the tables of the book."""
        self._finish_book(link)
        expected_lots: dict[Any, tuple[Any, ...]] = {
            number: (books.seq, *(getattr(books.lot, name) for name in LOT_COLUMNS[1:]))
            for number, books in self.lots.items()
        }
        balances = {number: _balance_row(books) for number, books in self.lots.items()}
        places = {number: books.seq for number, books in self.lots.items()}
        self._compare("lot", LOT_COLUMNS, expected_lots, self._rows(_LOTS, 1))
        self._compare("balance of lot", BALANCE_COLUMNS, balances, self._rows(_BALANCES, 1), places)
        accounts = {account: (asset,) for account, asset in self._accounts.items()}
        self._compare("ledger account", ("asset",), accounts, self._rows(_ACCOUNTS, 1))
        self._compare(
            "payment reference", ("lot_no", "seq"), self._references, self._rows(_REFERENCES, 2)
        )
        assets = {asset: (chart.asset_scale(asset),) for asset in self._accounts.values()}
        known = {code: (scale,) for code, scale in self._db.rows(_ASSETS) if code in assets}
        self._compare("asset", ("scale",), assets, known)

    def _check_times(self, entry: Entry) -> None:
        if self.at is not None and entry.at < self.at:
            self._say(entry, "time", f"not before {self.at.isoformat()}", entry.at)
        if entry.recorded_at < entry.at:
            self._say(entry, "time of recording", f"not before {entry.at.isoformat()}", entry.at)
        self.at = entry.at if self.at is None else max(self.at, entry.at)

    def _apply_transfers(self, entry: Entry) -> None:
        ledger = Sums()
        for index, transfer in enumerate(entry.transfers):
            self._check_transfer(entry, index, transfer)
            ledger.add_transfer(transfer)
        self._move(entry)
        for problem in differences(sums_of(entry.lines), ledger, "lines"):
            self._say(entry, "lines and transfers", "the same sums", problem)

    def _add_lot(self, entry: Entry, lot: Lot) -> None:
        if lot.number != len(self.lots) + 1:
            self._say(entry, "number of the new lot", len(self.lots) + 1, lot.number)
        self.lots[lot.number] = LotBooks(lot, entry.seq, LotDelta())
        for account in chart.MONEY_ACCOUNTS:
            self._accounts[chart.money(account, lot.currency)] = lot.currency
        self._accounts[chart.lot_units(lot.number)] = chart.CREDIT
        self._accounts[chart.lot_deferred(lot.number)] = lot.currency
        if (
            entry.kind == PURCHASE
        ):  # given credits are once per account: the record's key sees to it
            self._references[lot.origin, lot.reference] = lot.number, entry.seq

    def _open_payments(self, currency: str) -> None:
        for account in (*chart.MONEY_ACCOUNTS, *chart.PAYMENT_ACCOUNTS):
            self._accounts[chart.money(account, currency)] = currency

    def _mark(self, entry: Entry, mark: LotMark) -> None:
        books = self.lots.get(mark.lot_no)
        if books is None:
            self._say(entry, f"lot {mark.lot_no}", "a lot of the book", None)
            return
        books.lot = replace(
            books.lot,
            returned_minor=mark.returned_minor,
            charged_back_minor=mark.charged_back_minor,
            disputed=mark.disputed,
        )

    def _check_transfer(self, entry: Entry, index: int, transfer: Transfer) -> None:
        """Each asset balances: one amount, from one account to another, both kept in that asset."""
        name = f"transfer {index}"
        if transfer.amount <= 0 or transfer.debit == transfer.credit:
            self._say(entry, name, "a positive amount between two accounts", transfer)
        for account in (transfer.debit, transfer.credit):
            asset = self._accounts.get(account)
            if asset != transfer.asset:
                self._say(entry, f"{name}, asset of {account}", asset, transfer.asset)
        if transfer.phase is Phase.SINGLE:
            return
        key = transfer.grant_no, transfer.lot_no or 0
        sign = 1 if transfer.phase is Phase.PENDING else -1
        self.held[key] = self.held.get(key, 0) + sign * transfer.amount
        if self.held[key] < 0:
            self._say(entry, f"{name}, units held of lot {key[1]}", "at least 0", self.held[key])
        if not self.held[key]:
            del self.held[key]

    def _move(self, entry: Entry) -> None:
        for number, delta in lot_deltas(entry.transfers).items():
            books = self.lots.get(number)
            if books is None:
                self._say(entry, f"lot {number}", "a lot of the book", None)
                continue
            for name in LotDelta.__slots__:
                setattr(books.delta, name, getattr(books.delta, name) + getattr(delta, name))
            now = books.delta
            books.lot = lot_rules.moved(books.lot, delta)
            lot = books.lot
            (self.available.add if lot.available > 0 else self.available.discard)(number)
            for name, count in (
                ("units available", now.units_in - lot.used - lot.gone - lot.held),
                ("units held", lot.held),
                ("unearned money", books.left_minor),
            ):
                if count < 0:
                    self._say(entry, f"lot {number}, {name}", "at least 0", count)
            issued = (lot.units, lot.price_minor)
            if (now.units_in, now.money_in_minor) != issued:
                self._say(
                    entry,
                    f"lot {number}, units and money put in",
                    issued,
                    (now.units_in, now.money_in_minor),
                )
            if lot.deferred_minor != books.left_minor:
                name = f"lot {number}, unearned money after {lot.used} used and {lot.gone} removed"
                self._say(entry, name, lot.deferred_minor, books.left_minor)

    def _finish_book(self, link: Link) -> None:
        row = self._db.row(_BOOK, book_id=self.book_id)
        if row is None:
            self._found.append(discrepancy(self.book_id, None, "the book's row", "a row", None))
            return
        seq, head, at, lots = row
        if seq > link.seq:
            name = f"record {seq}" if seq == link.seq + 1 else f"records {link.seq + 1} to {seq}"
            self._found.append(
                discrepancy(self.book_id, link.seq + 1, f"{name} missing", "a row", None)
            )
        elif seq < link.seq:
            self._found.append(
                discrepancy(self.book_id, link.seq, "length of the book", link.seq, seq)
            )
        if bytes(head) != link.hash:
            self._found.append(
                discrepancy(self.book_id, link.seq, "head of the book", link.hash, bytes(head))
            )
        if self.at is not None and at != self.at:
            self._found.append(discrepancy(self.book_id, link.seq, "time of the book", self.at, at))
        if lots != len(self.lots):
            self._found.append(
                discrepancy(self.book_id, link.seq, "lots of the book", len(self.lots), lots)
            )

    def _rows(self, statement: Statement, keys: int) -> dict[Any, tuple[Any, ...]]:
        """Return the book's rows of a table by their key, which is the first columns."""
        rows = self._db.rows(statement, book_id=self.book_id)
        return {row[0] if keys == 1 else tuple(row[:keys]): tuple(row[keys:]) for row in rows}

    def _compare(
        self,
        what: str,
        columns: tuple[str, ...],
        expected: dict[Any, tuple[Any, ...]],
        rows: dict[Any, tuple[Any, ...]],
        places: dict[Any, int] | None = None,
    ) -> None:
        if rows != expected:
            self._found.extend(compared(self.book_id, what, columns, expected, rows, places))

    def _say(self, entry: Entry, what: str, expected: object, found: object) -> None:
        self._found.append(discrepancy(self.book_id, entry.seq, what, expected, found))


def _books_gpu_alone(entry: Entry) -> bool:
    """Whether lines and transfers book nothing but GPU cost, rightly and the same: so do most records.

    Then no lot moves, and there is nothing else to find out about them.
    """
    cost = 0
    for values in entry.line_values:
        if any(_NOT_GPU(values)):
            return False
        cost += sum(_GPU_COST(values))
    for debit, credit, asset, amount, phase, _, _ in entry.transfers:
        # Each is one account's cost: what accrued is the other side of it.
        if asset != chart.GPU or amount <= 0 or phase is not Phase.SINGLE:
            return False
        if credit == chart.GPU_ACCRUED and debit in _GPU_BOOKED:
            cost -= amount
        elif debit == chart.GPU_ACCRUED and credit in _GPU_BOOKED:
            cost += amount
        else:
            return False
    return cost == 0


def _balance_row(books: LotBooks) -> tuple[Any, ...]:
    delta = books.delta
    left = delta.units_in - delta.units_used - delta.units_gone
    return (
        *(getattr(delta, name) for name in LotDelta.__slots__),
        *(int(getattr(books.lot, name)) for name in MARKS),
        int(books.lot.refunded),
        int(left > 0),
        books.lot.expires_at,
    )
