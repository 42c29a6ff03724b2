"""`comptroller sweep`, `doctor` and `db`: keeping it running."""

from __future__ import annotations

import platform
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Final

import typer

from policies.errors import (
    ComptrollerError,
    InvalidRequest,
    PolicyError,
    SchemaMismatch,
    StoreUnavailable,
)
from policies.instants import Length
from policies.policy_set import PolicySet
from policies.suggest import one_line
from policies.words import dollars
from quota.edges.common import (
    DATABASE_DEFAULT,
    FOUND,
    POLICIES_DEFAULT,
    SERVICE_DOWN,
    AsJson,
    Database,
    Policies,
    console,
    escaped,
    must_exist,
    opened,
    print_json,
    say,
    several,
)
from quota.standings import Standing
from quota.stores.opening import open_store, without_password
from quota.version import ENGINE

if TYPE_CHECKING:
    from quota.engine import Comptroller

db = typer.Typer(help="The database's schema.", no_args_is_help=True, rich_markup_mode="rich")
OK: Final = "ok"
WARNING: Final = "warning"
WRONG: Final = "wrong"
MARKS: Final = {OK: "[green]✓[/green]", WARNING: "[yellow]![/yellow]", WRONG: "[red]✗[/red]"}


def add_to(root: typer.Typer) -> None:
    """Add the commands of the top level."""
    root.command()(sweep)
    root.command()(doctor)


def sweep(
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="LENGTH", help="Again and again: 30s. Ends on SIGTERM."),
    ] = None,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write down what has fallen due on quiet accounts: expired holds and lots.

    It changes no answer: reads count what is due without it. Run it so that the books of quiet
    accounts are written too. With --every it goes on where the database is away for a while.

    [dim]Example: comptroller sweep --every 30s[/dim]
    """
    pause = None if every is None else _seconds(every)
    stopped = threading.Event()
    if pause is not None:
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())
        signal.signal(signal.SIGINT, lambda *_: stopped.set())
    with opened(database, policies) as comptroller:
        if pause is None:
            _say_swept(comptroller.sweep(), as_json=as_json)
        else:
            keep_sweeping(comptroller, lambda: stopped.wait(pause), as_json=as_json)


def keep_sweeping(
    comptroller: Comptroller, pause: Callable[[], bool], *, as_json: bool = False
) -> None:
    """Sweep again and again, until `pause` says that it is enough. What a later try can mend ends nothing.

    Raises:
        ComptrollerError: no later try would help.
    """
    while True:
        try:
            if (written := comptroller.sweep()) or as_json:
                _say_swept(written, as_json=as_json, one_line=True)
        except ComptrollerError as error:
            if not error.retryable:
                raise
            said = f"{one_line(str(error))}; the next sweep tries again"
            console(stderr=True).print(escaped(said), soft_wrap=True)
        if pause():
            return


def _say_swept(written: int, *, as_json: bool, one_line: bool = False) -> None:
    if as_json:
        print_json({"records": written}, one_line=one_line)
    else:
        say(f"{several(written, 'record')} written")


def doctor(
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Look whether everything works: policies, database, schema, and what waits to be swept.

    Exits with 1 where something is wrong, and with 3 where the database cannot be reached.

    [dim]Example: comptroller doctor --database sqlite:///comptroller.db[/dim]
    """
    python = f"Python {platform.python_version()}"
    findings: list[tuple[str, str, str]] = [
        (OK, "version", f"comptroller {ENGINE}, {python}"),
        _policies(policies),
    ]
    found, down = _database(database, policies)
    findings += found
    if as_json:
        checks = [{"check": what, "is": how, "says": says} for how, what, says in findings]
        print_json({"ok": all(how != WRONG for how, _, _ in findings), "checks": checks})
    else:
        for how, what, says in findings:
            console().print(f"{MARKS[how]} {what:<10} {escaped(says)}", soft_wrap=True)
    if down:
        raise typer.Exit(SERVICE_DOWN)
    if any(how == WRONG for how, _, _ in findings):
        raise typer.Exit(FOUND)


@db.command()
def upgrade(
    database: Database = DATABASE_DEFAULT,
    partitions: Annotated[
        int,
        typer.Option(
            "--partitions",
            metavar="N",
            help="Make a new database on PostgreSQL with N hash partitions of each table of books.",
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Bring a database to this version's schema, or make a new one.

    [dim]Example: comptroller db upgrade --database sqlite:///comptroller.db[/dim]
    """
    _migrated(database, "auto", partitions)
    _say_version(database, as_json=as_json)


@db.command("check")
def check_schema(database: Database = DATABASE_DEFAULT, as_json: AsJson = False) -> None:
    """Make sure that a database has this version's schema. Changes nothing; exits with 1 if not.

    [dim]Example: comptroller db check --database sqlite:///comptroller.db[/dim]
    """
    must_exist(database)
    try:
        _migrated(database, "check")
    except SchemaMismatch as error:
        if as_json:
            print_json({"ok": False, "problem": str(error)})
        else:
            console(stderr=True).print(escaped(error), soft_wrap=True)
        raise typer.Exit(FOUND) from None
    _say_version(database, as_json=as_json)


def _migrated(database: str, how: str, partitions: int = 0) -> None:
    with closing(open_store(database)) as store:
        store.migrate(how, partitions=partitions)


def _say_version(database: str, *, as_json: bool) -> None:
    from billing.schema import WANTED

    if as_json:
        print_json({"ok": True, "version": WANTED})
    else:
        say(f"{escaped(without_password(database))}: schema version {WANTED}")


def _policies(path: str) -> tuple[str, str, str]:
    try:
        policy_set = PolicySet.load(path)
    except PolicyError as error:
        more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
        missing = path == POLICIES_DEFAULT and "no such file" in error.problems[0]
        return (WARNING if missing else WRONG), "policies", error.problems[0] + more
    return OK, "policies", f"{path}, version {policy_set.version[:12]}"


def _database(database: str, policies: str) -> tuple[list[tuple[str, str, str]], bool]:
    """Return what was found about the database, and whether it cannot be reached."""
    try:
        with opened(database, policies) as comptroller, closing(open_store(database)) as store:
            health = comptroller.health()
            server = "" if health.problem else store.server()
    except (StoreUnavailable, InvalidRequest) as error:
        return [(WRONG, "database", str(error))], isinstance(error, StoreUnavailable)
    except PolicyError:
        return [(WARNING, "database", "not looked at: the policy file has errors")], False
    except ComptrollerError as error:
        return [(WRONG, "database", str(error))], False
    writable = "writable" if health.writable else "not writable"
    shown = without_password(database)
    found = [
        (
            OK if health.ok else WRONG,
            "database",
            health.problem or f"{shown}, {server}, {writable}",
        ),
        (OK, "schema", f"version {health.schema_version}"),
        _redis(health.redis),
    ]
    overdue = f"{several(health.overdue_holds, 'expired grant')} not written yet"
    advice = ": run `comptroller sweep --every 30s`" if health.overdue_holds else ""
    found.append((WARNING if health.overdue_holds else OK, "sweep", overdue + advice))
    share = f"{health.expired} of {several(health.ended, 'grant')} that ended within a day expired"
    many = health.expired * 10 > health.ended
    found.append((WARNING if many else OK, "expiry", f"{share} ({health.expired_share})"))
    lost = f"{several(health.denials_lost, 'denial')} could not be recorded"
    found.append((WARNING if health.denials_lost else OK, "denials", lost))
    found += [(OK, "budget", _standing(budget)) for budget in health.budgets]
    return found, False


def _redis(state: str) -> tuple[str, str, str]:
    if state in ("up", "not configured"):
        return OK, "redis", state
    return WARNING, "redis", f"{state}: SQL decides everything meanwhile"


def _standing(budget: Standing) -> str:
    limit, leased = dollars(budget.limit_micro_usd), dollars(budget.leased_micro_usd)
    held = f", {leased} leased to processes" if budget.leased_micro_usd else ""
    return f"{budget.name}: {dollars(budget.spent_micro_usd)} of {limit} spent today{held}"


def _seconds(text: str) -> int:
    """Return a length of time in seconds."""
    try:
        length = Length.parse(text)
    except ValueError as error:
        raise InvalidRequest(f"--every: {error}") from None
    if length.is_calendar:
        raise InvalidRequest(f"--every: `{text}` is too long: write one such as 30s or 5m")
    return length.micros // 1_000_000
