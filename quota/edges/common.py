"""What all commands share: their options, opening the engine, printing for people and machines."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.measure import Measurement

from policies.errors import InvalidRequest
from policies.instants import Length, add_months
from quota.clock import system_clock
from quota.scratch import sqlite_path

if TYPE_CHECKING:
    from rich.table import Table

    from quota.engine import Comptroller
    from quota.grants import Grant

DONE: Final = 0
FOUND: Final = 1
"""Discrepancies or errors were found."""
BAD_INPUT: Final = 2
SERVICE_DOWN: Final = 3

WIDE: Final = 200
"""How wide tables are where no terminal says how wide it is."""
ANY_WIDTH: Final = 10_000
YEARS: Final = range(1900, 9000)
"""The years that people mean: what lies beyond has no room for a window around it."""

DATABASE_DEFAULT: Final = "sqlite:///comptroller.db"
POLICIES_DEFAULT: Final = "policies.yaml"
REDIS_VARIABLE: Final = "COMPTROLLER_REDIS"
"""Where the environment names Redis, every command tells it what it writes."""

Database = Annotated[
    str,
    typer.Option(
        "--database",
        "-d",
        envvar="COMPTROLLER_DATABASE",
        metavar="URL",
        help="The database that the books are kept in.",
        rich_help_panel="Where",
    ),
]
Policies = Annotated[
    str,
    typer.Option(
        "--policies",
        "-p",
        envvar="COMPTROLLER_POLICIES",
        metavar="FILE",
        help="The policy file; where there is none, the policies that the database used last.",
        rich_help_panel="Where",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON for machines.", rich_help_panel="Output")
]
Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's name.")]

_AGO: Final = re.compile(r"(\d{1,9}(?:mo|y|s|m|h|d)) ago\Z")
_CLOCK: Final = re.compile(r"(?:(today|yesterday)(?:[ T]+|\Z))?(?:(\d{1,2}:\d{2}(?::\d{2})?))?\Z")


class Screen(Console):
    """A console that goes on in silence where nobody reads on: what was found is still the exit code."""

    def on_broken_pipe(self) -> None:
        """Whoever read our output (`head`, say) has seen enough."""
        fall_silent()


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return where people read. Colours only on a terminal, and not where NO_COLOR is set."""
    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or os.environ.get("COLUMNS") else WIDE
    return Screen(stderr=stderr, highlight=False, width=width or wide, soft_wrap=False)


def print_table(table: Table) -> None:
    """Print a table. Where its words do not fit beside each other, the terminal wraps its lines: none is cut."""
    screen = console()
    needed = Measurement.get(screen, screen.options.update(width=ANY_WIDTH), table)
    fits = needed.minimum <= screen.width
    (screen if fits else console(width=needed.maximum)).print(table)


def write(text: str) -> None:
    """Write text for machines to stdout, at once."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        fall_silent()


def fall_silent() -> None:
    """Send what is still written to stdout nowhere. Python must not complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str = "") -> None:
    """Print a line for people; `[bold]` and the like are styles."""
    console().print(text)


def print_json(value: object, *, one_line: bool = False) -> None:
    """Print a value as JSON. `one_line`: of several, each on a line of its own."""
    write(json.dumps(plain(value), indent=None if one_line else 2, ensure_ascii=False) + "\n")


def plain(value: object) -> Any:
    """Return a value as JSON has it: instants in ISO 8601, decimals as text, money in integers."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (Decimal, Path)):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(each) for each in value)
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def grant_json(grant: Grant) -> dict[str, Any]:
    """Return a grant as JSON has it. Units are integers, GPU cost in micro-dollars."""
    return {**plain(grant), "units_by_source": grant.units_by_source}


@contextmanager
def opened(database: str, policies: str) -> Iterator[Comptroller]:
    """Open the engine on a database that exists and has this version's schema, behind COMPTROLLER_REDIS.

    Raises:
        InvalidRequest: there is no such database or policy file, or the Redis URL cannot be read.
        PolicyError: the policy file has errors.
        SchemaMismatch: the database has another schema.
        StoreUnavailable: the database cannot be opened.
    """
    from quota.edges.stored import latest_policies
    from quota.engine import Comptroller

    must_exist(database)
    chosen: Any = policies
    if policies == POLICIES_DEFAULT and not Path(policies).exists():
        chosen = latest_policies(database)
        if chosen is None:
            raise InvalidRequest(
                f"there is no {POLICIES_DEFAULT} here: give --policies FILE or set "
                "COMPTROLLER_POLICIES"
            )
    redis = os.environ.get(REDIS_VARIABLE) or None
    with Comptroller.open(chosen, database, redis, migrate="check") as comptroller:
        yield comptroller


def must_exist(database: str) -> None:
    """Make sure that an SQLite file is there: a mistyped name must not become a new database.

    Raises:
        InvalidRequest: it is not.
    """
    path = sqlite_path(database)
    if path is not None and not path.exists():
        raise InvalidRequest(
            f"there is no database file {path}: give --database URL, set COMPTROLLER_DATABASE, or "
            "make one with `comptroller db upgrade`"
        )


def instant(text: str | None, name: str) -> datetime | None:
    """Read an instant; without a zone it is UTC. None stays None.

    Raises:
        InvalidRequest: it is none.
    """
    if text is None:
        return None
    try:
        at = _read_instant(text.strip(), system_clock())
        if at.year in YEARS:
            return at
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest(
        f"--{name} `{text:.60}` is no time: write one such as 2026-09-01, `2026-09-01 14:03`, "
        "`yesterday 14:03` or `2h ago`"
    )


def _read_instant(text: str, now: datetime) -> datetime:
    said = text.lower()
    if said == "now":
        return now
    if ago := _AGO.match(said):
        length = Length.parse(ago[1])
        if length.is_calendar:
            return add_months(now, -length.months)
        return now - timedelta(microseconds=length.micros)
    if said and (match := _CLOCK.match(said)):
        day = now.date() - timedelta(days=1 if match[1] == "yesterday" else 0)
        at = time.fromisoformat(match[2].rjust(5, "0") if match[2] else "00:00")
        return datetime.combine(day, at, UTC)
    at_instant = datetime.fromisoformat(text)
    return (
        at_instant.replace(tzinfo=UTC) if at_instant.tzinfo is None else at_instant.astimezone(UTC)
    )


def clock_text(at: datetime | None, missing: str = "-") -> str:
    """Return an instant as people read it, in UTC."""
    if at is None:
        return missing
    fine = "%Y-%m-%d %H:%M:%S" + (".%f" if at.microsecond else "")
    return at.strftime(fine)


def attributes_text(attributes: Mapping[str, object]) -> str:
    """Return attributes as people read them: `quality=high seconds=25`."""
    return " ".join(f"{name}={value}" for name, value in sorted(attributes.items()))


def several(count: int, one: str, more: str = "") -> str:
    """Return `1 lot` or `2 lots`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def escaped(text: object) -> str:
    """Return text so that nothing in it is read as a style."""
    from rich.markup import escape

    return escape(str(text))


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on a terminal, which is told how many are done, of how many."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(None),
        TextColumn("{task.completed:,} of {task.total:,} " + what),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=1)
        yield lambda done, total: bar.update(task, completed=done, total=total)
