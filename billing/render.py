"""Statements and reports as tables for people, as CSV for spreadsheets, as JSON for machines.

People read money as decimals of its currency. CSV and JSON hold integers, with the unit and the
currency in their names. A cell of CSV that somebody else chose the text of cannot become a formula.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from billing.report import Deferred, Report, ReportRow
from billing.statement import Statement, StatementLine, StatementTotals
from billing.sums import Check
from policies.errors import InvalidRequest
from policies.words import at_attributes, dollars, money

Format = Literal["table", "csv", "json"]
FORMATS: Final = ("table", "csv", "json")
TABLE_WIDTH: Final = 200
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def render(what: Statement | Report, how: str, *, width: int = TABLE_WIDTH) -> str:
    """Return a statement or a report as text. `width`: of tables, in characters.

    Raises:
        InvalidRequest: there is no such format.
    """
    match how:
        case "table":
            return _drawn(tables(what), what.check, width)
        case "csv":
            rows = _statement_rows(what) if isinstance(what, Statement) else _report_rows(what)
            return csv_text(rows)
        case "json":
            return json.dumps(as_values(what), indent=2, ensure_ascii=False)
        case _:
            raise InvalidRequest(f"format must be one of {', '.join(FORMATS)}, not `{how!s:.40}`")


def tables(what: Statement | Report) -> list[Table]:
    """Return a statement or a report as tables for a terminal."""
    if isinstance(what, Statement):
        return [_lines_table(what)]
    return [_groups_table(what), *([_deferred_table(what)] if what.deferred else [])]


def as_values(what: object) -> Any:
    """Return dataclasses as plain values for JSON: instants in ISO 8601, units in the names."""
    if isinstance(what, Check):
        return {"ok": what.ok, "problems": list(what.problems)}
    if hasattr(what, "__dataclass_fields__"):
        named = fields(what)  # type: ignore[arg-type]
        return {each.name: as_values(getattr(what, each.name)) for each in named}
    if isinstance(what, Mapping):
        return {str(name): as_values(value) for name, value in what.items()}
    if isinstance(what, tuple) and hasattr(what, "_fields"):
        return {name: as_values(getattr(what, name)) for name in what._fields}
    if isinstance(what, (list, tuple)):
        return [as_values(value) for value in what]
    if isinstance(what, (datetime, date)):
        return instant(what) if isinstance(what, datetime) else what.isoformat()
    return str(what) if isinstance(what, Decimal) else what


def instant(at: datetime) -> str:
    """Spell an instant in UTC: `2026-09-01T12:00:00Z`, with microseconds where it has some."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header. What a spreadsheet would run gets a `'` before it."""
    lines: list[str] = []
    for row in rows:
        if not lines:
            lines.append(csv_line(row))
        lines.append(csv_line(row.values()))
    return "".join(lines)


def csv_line(cells: Iterable[Any]) -> str:
    """Return one line of CSV with its line end."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([safe(cell) for cell in cells])
    return out.getvalue()


def safe(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula. Numbers stay numbers."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value


# --- statement ----------------------------------------------------------------------------------


def _statement_rows(statement: Statement) -> Iterable[dict[str, Any]]:
    for line in statement.lines:
        row = {each.name: getattr(line, each.name) for each in fields(line)}
        row["at"] = instant(line.at)
        row["attributes"] = at_attributes(line.attributes)
        yield {"account": statement.account, **row}


def _lines_table(statement: Statement) -> Table:
    title = f"{statement.account}: {instant(statement.since)} to {instant(statement.until)}"
    table = _quiet(title, caption=_statement_caption(statement))
    for name in ("at", "what", "operation", "source"):
        table.add_column(name, overflow="fold")
    for name in ("weight", "units", "window", "money", "GPU cost", "credits after"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("detail", overflow="fold")
    for line in statement.lines:
        table.add_row(*_line_cells(line))
    return table


def _line_cells(line: StatementLine) -> list[str]:
    operation = line.operation
    if line.attributes:
        operation += f" ({at_attributes(line.attributes)})"
    window = "" if line.limit is None else f"{line.used_after} of {line.limit}"
    source = " ".join(filter(None, (line.source, line.lot_id)))
    whose = " ".join(filter(None, (line.grant_id, line.member, line.detail)))
    return [
        instant(line.at),
        line.what,
        operation,
        source,
        "" if line.weight is None else str(line.weight),
        f"{line.units:+}" if line.units else "",
        window,
        _line_money(line),
        _gpu(line.gpu_estimated_micro_usd, line.gpu_micro_usd, line.gpu_unreported_micro_usd),
        str(line.credits_after),
        whose,
    ]


def _line_money(line: StatementLine) -> str:
    parts = (
        ("sold", line.sold_minor),
        ("earned", line.revenue_minor),
        ("expired", line.breakage_minor),
        ("refunded", line.refunded_minor),
        ("paid back", line.returned_minor),
        ("fee", line.fee_minor),
    )
    currency = line.currency or ""
    return ", ".join(f"{name} {money(amount, currency)}" for name, amount in parts if amount)


def _gpu(estimated: int, actual: int, unreported: int) -> str:
    parts = (("est.", estimated), ("", actual), ("unreported", unreported))
    return ", ".join(f"{name} {dollars(cost)}".strip() for name, cost in parts if cost)


def _statement_caption(statement: Statement) -> str:
    totals = statement.totals
    units = ", ".join(f"{count} {source}" for source, count in totals.units.items()) or "none"
    return (
        f"credits {statement.opening_credits} -> {statement.closing_credits}; "
        f"{totals.grants} grants; units {units}; sold {_amounts(totals.sold_minor)}; "
        f"earned {_amounts(totals.revenue_minor)}; expired {_amounts(totals.breakage_minor)}; "
        f"refunded {_amounts(totals.refunded_minor)}; {_through_stripe(totals)}GPU cost estimated "
        f"{dollars(totals.gpu_estimated_micro_usd)}, actual {dollars(totals.gpu_micro_usd)}, "
        f"unreported {dollars(totals.gpu_unreported_micro_usd)}"
    )


def _through_stripe(totals: StatementTotals) -> str:
    """Say what was paid back and what it cost, where there was any of it."""
    parts = (("paid back", totals.returned_minor), ("fees", totals.fee_minor))
    return "".join(f"{name} {_amounts(amounts)}; " for name, amounts in parts if amounts)


# --- report -------------------------------------------------------------------------------------

_COUNTS: Final = (
    *("grants", "settled", "released", "expired", "late", "attempts"),
    *("units_granted", "units_returned", "units_net"),
    *("gpu_estimated_micro_usd", "gpu_micro_usd", "gpu_unreported_micro_usd", "margin_micro_usd"),
)
_ROLLED: Final = tuple(each.name for each in fields(Deferred))


def _report_rows(report: Report) -> Iterable[dict[str, Any]]:
    currencies = sorted({name for row in report.rows for name in row.revenue_minor})
    for what, rows in (("group", report.rows), ("total", (report.totals,))):
        for row in rows:
            yield {
                "row": what,
                **{name: row.key.get(name, "") for name in report.by},
                **{name: getattr(row, name) for name in _COUNTS},
                **{f"revenue_{name}_minor": row.revenue_minor.get(name, 0) for name in currencies},
                **{f"deferred_{name}": "" for name in _ROLLED},
            }
    for rolled in report.deferred:
        yield {
            "row": "deferred",
            **dict.fromkeys((*report.by, *_COUNTS), ""),
            **{f"revenue_{name}_minor": "" for name in currencies},
            **{f"deferred_{name}": getattr(rolled, name) for name in _ROLLED},
        }


def _groups_table(report: Report) -> Table:
    title = f"{instant(report.since)} to {instant(report.until)}, days in {report.timezone}"
    table = _quiet(title)
    for name in report.by or ("",):
        table.add_column(name, overflow="fold")
    for name in (
        *("grants", "failed", "expired", "units", "returned", "net"),
        *("est. GPU", "GPU", "unreported", "revenue", "margin"),
    ):
        table.add_column(name, justify="right", overflow="fold")
    for row in report.rows:
        table.add_row(*(row.key[name] or "-" for name in report.by or ()), *_row_cells(row))
    table.add_section()
    blanks = [""] * (max(1, len(report.by)) - 1)
    table.add_row("all", *blanks, *_row_cells(report.totals), style="bold")
    return table


def _row_cells(row: ReportRow) -> list[str]:
    return [
        str(row.grants),
        str(row.released),
        str(row.expired),
        str(row.units_granted),
        str(row.units_returned),
        str(row.units_net),
        dollars(row.gpu_estimated_micro_usd),
        dollars(row.gpu_micro_usd),
        dollars(row.gpu_unreported_micro_usd),
        _amounts(row.revenue_minor),
        dollars(row.margin_micro_usd),
    ]


def _deferred_table(report: Report) -> Table:
    table = _quiet("Unearned money, rolled forward")
    table.add_column("currency")
    for name in (
        *("opening", "sold", "recognised", "breakage", "refunded", "closing"),
        *("paid back", "fees"),
    ):
        table.add_column(name, justify="right", overflow="fold")
    for rolled in report.deferred:
        amounts = (getattr(rolled, name) for name in _ROLLED if name != "currency")
        table.add_row(rolled.currency, *(money(amount, rolled.currency) for amount in amounts))
    return table


def _quiet(title: str, caption: str | None = None) -> Table:
    """Return a table with rules for its header alone: columns need the room."""
    return Table(
        title=title,
        caption=caption,
        box=SIMPLE,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )


def _amounts(amounts: Mapping[str, int]) -> str:
    return ", ".join(money(amount, currency) for currency, amount in amounts.items()) or "-"


def _drawn(drawn: list[Table], check: Check, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, no_color=True, highlight=False, markup=False)
    for table in drawn:
        console.print(table)
    if check.ok:
        console.print("Agrees with the books to the unit and the cent.")
    for problem in check.problems:
        console.print(f"DISAGREES WITH THE BOOKS: {problem}")
    return out.getvalue()
