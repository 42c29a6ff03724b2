"""Comparing the tables of grants, holds, ends and settings of one book with what its records say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import bindparam, select

from billing.as_stored import as_stored
from billing.book import canonical, salted_hash
from billing.books import zones_text
from billing.chain import FIRST, LAST
from billing.discrepancy import Discrepancy, compared, discrepancy
from billing.entries import Entry
from billing.sql import Db, Statement
from billing.stripe.top_ups import TopUp, load_top_up
from billing.tables import ACCOUNT_NAMES, BOOKS, ERASABLES
from policies.instants import from_micros, micros
from quota.audit.payments import (
    PURCHASE_COLUMNS,
    expected_purchases,
    purchase_rows,
    suspended,
)
from quota.audit.plans import INVOICE_COLUMNS, expected_invoices, invoice_rows
from quota.audit.state import BookAudit
from quota.audit.stripe import check_said
from quota.tables import ENDINGS, GPU_ATTEMPTS, GRANTS, HOLDS, LATE_ENDINGS

GRANT_COLUMNS: Final = (
    *("seq", "key_hash", "request_hash", "at", "plan", "operation", "attributes"),
    *("member", "policy_version", "gpu_cost_micro_usd", "allocations"),
)
HOLD_COLUMNS: Final = ("granted_at", "expires_at", "started_at", "returns", "member")
ENDING_COLUMNS: Final = (
    *("seq", "status", "reason", "at"),
    *("units_charged", "gpu_cost_micro_usd", "gpu_reported"),
)
LATE_COLUMNS: Final = ("seq", "at", "units_charged", "gpu_cost_micro_usd", "gpu_reported")
ATTEMPT_COLUMNS: Final = ("seq", "gpu_cost_micro_usd", "gpu_seconds", "gpu")
SETTINGS: Final = (
    *("grants", "plan", "zones", "paid_use"),
    *("spend_cap_minor", "spend_cap_per", "disputes", "plan_due", "frozen"),
)
INSTANTS: Final = frozenset({"at", "granted_at", "expires_at", "started_at"})
HASHED: Final = ("key", "member", "text")
TEXTS_MAX: Final = 1000


def _of_book(table: Any, *columns: str) -> Statement:
    return as_stored(
        [table.c[name] for name in columns],
        lambda query: query.where(table.c.book_id == bindparam("book_id")),
    )


_GRANTS: Final = as_stored(
    [GRANTS.c.number, *(GRANTS.c[name] for name in GRANT_COLUMNS)],
    lambda query: query.where(
        GRANTS.c.book_id == bindparam("book_id"),
        GRANTS.c.number > bindparam("after"),
        GRANTS.c.number <= bindparam("last"),
    ),
)
_HOLDS: Final = _of_book(HOLDS, "grant_no", *HOLD_COLUMNS)
_ENDINGS: Final = _of_book(ENDINGS, "grant_no", *ENDING_COLUMNS)
_LATE: Final = _of_book(LATE_ENDINGS, "grant_no", *LATE_COLUMNS)
_ATTEMPTS: Final = _of_book(GPU_ATTEMPTS, "grant_no", "attempt", *ATTEMPT_COLUMNS)
_VALUES: Final = _of_book(ERASABLES, "hash", "value")
_NAME: Final = _of_book(ACCOUNT_NAMES, "name", "salt")
_SETTINGS: Final = Statement(
    select(*(BOOKS.c[name] for name in SETTINGS)).where(BOOKS.c.id == bindparam("book_id"))
)

Rows = dict[Any, tuple[Any, ...]]


def load_values(db: Db, book_id: int) -> dict[str, str]:
    """Load what a book's salted hashes stand for."""
    return dict(db.rows(_VALUES, book_id=book_id))


class RowAudit:
    """Collects the rows that a book's records make, and compares them with the tables."""

    def __init__(self, db: Db, book: BookAudit, found: list[Discrepancy]) -> None:
        """Begin with no rows. Discrepancies are added to `found`."""
        self._db, self._book, self._found = db, book, found
        self._grants: Rows = {}
        self._texts: dict[str, str] = {}
        self._grants_after = FIRST
        self._endings: Rows = {}
        self._late: Rows = {}
        self._attempts: Rows = {}

    def add(self, entry: Entry) -> None:
        """Add the rows that a record makes."""
        facts, number = entry.facts, entry.grant_no
        match entry.kind:
            case "grant":
                if not isinstance(number, int):
                    raise TypeError(f"a grant's number is not {number!r}")
                self._grants[number] = self._grant_row(entry)
            case "settled" | "released" | "expired":
                self._endings[number] = (
                    entry.seq,
                    entry.kind,
                    facts["reason"],
                    entry.at_micros,
                    sum(facts["kept"]),
                    facts["gpu_cost_micro_usd"],
                    int(facts["gpu_reported"]),
                )
            case "late":
                self._late[number] = (
                    entry.seq,
                    entry.at_micros,
                    sum(facts["charged"]),
                    facts["gpu_cost_micro_usd"],
                    int(facts["gpu_reported"]),
                )
            case "attempt":
                self._attempts[number, facts["attempt"]] = (
                    entry.seq,
                    facts["gpu_cost_micro_usd"],
                    facts["gpu_seconds"],
                    facts["gpu"] or "",
                )
            case _:
                pass

    def end_of_page(self, *, last: bool) -> None:
        """Compare the grants so far, so that no more than a page of them is held."""
        if not self._grants and not last:
            return
        upto = LAST if last else max(self._grants)
        rows = self._rows(_GRANTS, 1, after=self._grants_after, last=upto)
        self._compare("grant", GRANT_COLUMNS, self._grants, rows)
        self._grants, self._grants_after = {}, upto

    def finish(self) -> None:
        """Compare everything that is not compared by page."""
        self.end_of_page(last=True)
        book = self._book
        holds: Rows = {
            number: (
                micros(hold.grant.at),
                micros(hold.expires_at),
                None if hold.started_at is None else micros(hold.started_at),
                int(hold.facts["returns"] is True),
                hold.grant.member,
            )
            for number, hold in book.open.items()
        }
        self._compare("hold", HOLD_COLUMNS, holds, self._rows(_HOLDS, 1), book.grant_seq)
        self._compare("end of grant", ENDING_COLUMNS, self._endings, self._rows(_ENDINGS, 1))
        self._compare("late end of grant", LATE_COLUMNS, self._late, self._rows(_LATE, 1))
        self._compare("attempt", ATTEMPT_COLUMNS, self._attempts, self._rows(_ATTEMPTS, 2))
        self._finish_holds()
        purchases, places = expected_purchases(book), {k: s.seq for k, s in book.sales.items()}
        rows = purchase_rows(self._db, book.book_id)
        self._compare("purchase", PURCHASE_COLUMNS, purchases, rows, places)
        invoices = invoice_rows(self._db, book.book_id)
        self._compare("invoice", INVOICE_COLUMNS, expected_invoices(book, invoices), invoices)
        top_up, kept = book.top_up, load_top_up(self._db, book.book_id)
        told: Rows = {} if top_up is None else {"": tuple(top_up[0])}
        self._compare("top-up", TopUp._fields, told, {} if kept is None else {"": tuple(kept)})
        check_said(self._db, book, self._found)
        self._finish_settings()
        self._finish_names()

    def _finish_holds(self) -> None:
        """Units of lots are held by open grants, all that each took, and by disputes, and by nothing else."""
        expected: dict[tuple[int | None, int], int] = {
            (number, part[1]): part[2]
            for number, hold in self._book.open.items()
            for part in hold.facts["allocations"]
            if part[1] is not None
        } | suspended(self._book)
        held = self._book.ledger.held
        for key in sorted({*expected, *held}, key=str):
            ours, theirs = expected.get(key, 0), held.get(key, 0)
            if ours != theirs:
                what = "a dispute" if key[0] is None else f"grant {key[0]}"
                name = f"units of lot {key[1]} held for {what}"
                seq = self._book.grant_seq.get(key[0] or 0)
                self._found.append(discrepancy(self._book.book_id, seq, name, ours, theirs))

    def _finish_settings(self) -> None:
        settings, book_id = self._book.settings, self._book.book_id
        row = self._db.row(_SETTINGS, book_id=book_id)
        if row is None:
            return  # the ledger's audit says that there is no such book
        expected = (
            settings.grants,
            settings.plan,
            zones_text(settings.zones),
            settings.paid_use,
            settings.spend_cap_minor,
            settings.spend_cap_per,
            settings.disputes,
            settings.plan_due,
            settings.frozen,
        )
        self._compare("settings", SETTINGS, {"": expected}, {"": tuple(row)})

    def _finish_names(self) -> None:
        """What a hash stands for is what was hashed, and nothing is kept of who was forgotten."""
        book, book_id = self._book, self._book.book_id
        name = self._db.row(_NAME, book_id=book_id)
        if book.forgotten or name is None:
            if name is not None or book.values:
                kept = "a name" if name is not None else f"{len(book.values)} values"
                self._found.append(
                    discrepancy(
                        book_id, None, "names and values of a forgotten account", None, kept
                    )
                )
            elif not book.forgotten:
                self._found.append(discrepancy(book_id, None, "name of the account", "one", None))
            return
        salt = bytes(name[1])
        for hashed, value in book.values.items():
            if not any(salted_hash(salt, what, value) == hashed for what in HASHED):
                what = f"value of hash {hashed}"
                seq = book.needed.get(hashed)
                self._found.append(discrepancy(book_id, seq, what, "what was hashed", value))
        for hashed, seq in book.needed.items():
            if hashed not in book.values:
                what = f"value of hash {hashed}"
                self._found.append(discrepancy(book_id, seq, what, "one", None))

    def _rows(self, statement: Statement, keys: int, **values: int) -> Rows:
        rows = self._db.rows(statement, book_id=self._book.book_id, **values)
        return {row[0] if keys == 1 else tuple(row[:keys]): tuple(row[keys:]) for row in rows}

    def _compare(
        self,
        what: str,
        columns: tuple[str, ...],
        expected: Rows,
        rows: Rows,
        places: Mapping[Any, int] | None = None,
    ) -> None:
        if rows != expected:
            book_id = self._book.book_id
            ours, theirs = _with_instants(columns, expected), _with_instants(columns, rows)
            self._found.extend(compared(book_id, what, columns, ours, theirs, places))

    def _grant_row(self, entry: Entry) -> tuple[Any, ...]:
        facts = entry.facts
        return (
            entry.seq,
            facts["key"],
            facts["request"],
            entry.at_micros,
            entry.plan,
            entry.operation,
            self._text(facts["attributes"]),
            entry.member,
            facts["policy"],
            facts["gpu_cost_micro_usd"],
            self._text(facts["allocations"]),
        )

    def _text(self, content: Any) -> str:
        """Return canonical JSON. What is spelt alike is worked out once: most grants take the same."""
        spelt = repr(content)
        text = self._texts.get(spelt)
        if text is None:
            if len(self._texts) >= TEXTS_MAX:
                self._texts.clear()
            text = self._texts[spelt] = canonical(content).decode()
        return text


def _with_instants(columns: tuple[str, ...], rows: Rows) -> Rows:
    """Return rows for people: they were compared as they are stored, with instants in microseconds."""
    return {
        key: tuple(
            from_micros(value) if name in INSTANTS and value is not None else value
            for name, value in zip(columns, row, strict=True)
        )
        for key, row in rows.items()
    }
