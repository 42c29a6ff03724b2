"""`comptroller stripe`: what Stripe has sent, what became of purchases, and whether the books agree with Stripe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.table import Table

from policies.errors import ComptrollerError, InvalidRequest
from policies.instants import Length, add_months
from policies.words import money
from quota.clock import system_clock
from quota.edges.common import (
    DATABASE_DEFAULT,
    FOUND,
    POLICIES_DEFAULT,
    Account,
    AsJson,
    Database,
    Policies,
    clock_text,
    console,
    escaped,
    instant,
    opened,
    plain,
    print_json,
    print_table,
    say,
)
from quota.edges.show_account import heading, table

if TYPE_CHECKING:
    from billing.stripe.inbox import Letter
    from billing.stripe.reconcile import Reconciliation
    from quota.engine import Comptroller
    from quota.sales import StripeOutcome

app = typer.Typer(
    help="Selling through Stripe: events, purchases, reconciliation.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
EVENTS_MAX: Final = 10_000
STATUS_STYLES: Final = {
    "done": "green",
    "ignored": "dim",
    "received": "yellow",
    "failed": "red",
    "paid": "green",
    "pending": "yellow",
    "quarantined": "red",
}
WORDS: Final = {
    "event": "events",
    "checkout.session": "checkouts",
    "subscription": "subscriptions",
    "invoice": "invoices",
    "invoice_payment": "payments of invoices",
    "payment_intent": "payments",
    "refund": "refunds",
    "dispute": "disputes",
    "balance_transaction": "balance transactions",
    "payout": "payouts",
    "purchase": "purchases",
}


@app.command()
def reconcile(
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="7d|TIME",
            help="What Stripe has made since then; 30d by default, as far as it lists events.",
        ),
    ] = None,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Hold the books against Stripe: take in what webhooks have lost, and report what disagrees.

    Safe to run at any time, and again; one that was interrupted goes on. STRIPE_API_KEY gives the
    key. Exits with 1 where anything is left.

    [dim]Example: comptroller stripe reconcile --since 7d[/dim]
    """
    start = _since(since)
    with opened(database, policies) as comptroller, _watched() as progress:
        found = comptroller.reconcile_stripe(start, progress=progress)
    if as_json:
        print_json({"settled": found.settled, **plain(asdict(found))})
    else:
        _show(found)
    if not found.settled:
        raise typer.Exit(FOUND)


@app.command()
def events(
    status: Annotated[
        Literal["received", "done", "ignored", "failed"] | None,
        typer.Option("--status", help="Only events of this status."),
    ] = None,
    most: Annotated[
        int, typer.Option("--most", min=1, max=EVENTS_MAX, help="How many, at most.")
    ] = 50,
    replay: Annotated[
        str | None, typer.Option("--replay", metavar="EVENT", help="Work this event off now.")
    ] = None,
    replay_failed: Annotated[
        bool, typer.Option("--replay-failed", help="Work off now all that failed.")
    ] = False,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show what Stripe has sent, latest first, and what it did; or work events off again.

    Exits with 1 where an event that was replayed has failed again.

    [dim]Example: comptroller stripe events --status failed[/dim]
    """
    if replay is not None and replay_failed:
        raise InvalidRequest("give --replay EVENT or --replay-failed, not both")
    with opened(database, policies) as comptroller:
        if replay is None and not replay_failed:
            _show_events(comptroller.stripe_events(status, most=most), as_json=as_json)
            return
        if replay is not None:
            outcomes = [_row(comptroller.replay_stripe_event(replay))]
        else:
            outcomes = list(_replayed(comptroller))
    if as_json:
        print_json({"events": outcomes})
    else:
        rows = table("event", "type", "status", "effect")
        for each in outcomes:
            style = STATUS_STYLES[each["status"]]
            shown = f"[{style}]{each['status']}[/{style}]"
            rows.add_row(each["event_id"], each["type"], shown, escaped(each["effect"]))
        _print_rows(rows if outcomes else None, "no event has failed")
    if any(each["status"] == "failed" for each in outcomes):
        raise typer.Exit(FOUND)


@app.command()
def purchases(
    account: Account,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show an account's purchases through Stripe, and what has become of each.

    [dim]Example: comptroller stripe purchases u_42[/dim]
    """
    with opened(database, policies) as comptroller:
        found = comptroller.purchases(account)
    if as_json:
        print_json({"purchases": found})
        return
    right = ("price", "paid", "returned", "fees")
    rows = table("offered", "purchase", "what", "price", "status", *right[1:], "lot", right=right)
    for each in found:
        style = STATUS_STYLES.get(each.status, "dim")
        returned = each.refunded_minor + each.lost_minor
        rows.add_row(
            clock_text(each.created_at.replace(microsecond=0)),
            each.id,
            escaped(f"{each.units} units ({each.pack})" if each.units else f"plan {each.pack}"),
            money(each.price_minor, each.currency),
            f"[{style}]{each.status}[/{style}]" + (", disputed" if each.disputed else ""),
            *(
                money(amount, each.currency) if amount else "-"
                for amount in (each.total_minor, returned, each.fee_minor)
            ),
            each.lot_id or escaped(each.problem or "-"),
        )
    _print_rows(rows if found else None, "none")


def _print_rows(rows: Table | None, nothing: str) -> None:
    """Print a table, or that there is none."""
    if rows is None:
        say(f"[dim]{nothing}[/dim]")
    else:
        print_table(rows)


def _since(text: str | None) -> datetime | None:
    """Read how far back to look: a length of time, or an instant."""
    if text is None:
        return None
    try:
        length = Length.parse(text.strip())
    except ValueError:
        return instant(text, "since")
    if length.is_calendar:
        return add_months(system_clock(), -length.months)
    return system_clock() - timedelta(microseconds=length.micros)


def _replayed(comptroller: Comptroller) -> Iterator[dict[str, Any]]:
    """Work off all that failed, oldest first. What cannot be done now keeps nobody from the rest."""
    for letter in reversed(comptroller.stripe_events("failed", most=EVENTS_MAX)):
        try:
            yield _row(comptroller.replay_stripe_event(letter.id))
        except ComptrollerError as error:
            yield {
                "event_id": letter.id,
                "type": letter.type,
                "status": "failed",
                "effect": str(error),
            }


def _row(outcome: StripeOutcome) -> dict[str, Any]:
    return asdict(outcome)


def _show_events(found: list[Letter], *, as_json: bool) -> None:
    if as_json:
        # The bytes name the buyer, and are for nobody's terminal.
        rows = [{**plain(each), "payload": None} for each in found]
        print_json({"events": [{k: v for k, v in row.items() if k != "payload"} for row in rows]})
        return
    shown = table("received", "event", "type", "status", "tries", "effect", right=("tries",))
    for each in found:
        style = STATUS_STYLES[each.status]
        shown.add_row(
            clock_text(each.received_at.replace(microsecond=0)),
            escaped(each.id),
            escaped(each.type),
            f"[{style}]{each.status}[/{style}]",
            str(each.attempts),
            escaped(each.effect or "-"),
        )
    _print_rows(shown if found else None, "none")


def _show(found: Reconciliation) -> None:
    looked = ", ".join(f"{number} {WORDS[kind]}" for kind, number in found.checked.items())
    say(f"[dim]since {clock_text(found.since.replace(microsecond=0))}: {looked}[/dim]")
    if found.applied_count:
        heading(f"{found.applied_count} that no webhook had brought")
        rows = table("kind", "id", "effect")
        for each in found.applied:
            rows.add_row(each.kind, escaped(each.id), escaped(each.effect))
        print_table(rows)
    if found.payouts:
        heading("payouts")
        print_table(_payouts(found))
    if found.not_ours:
        heading("not ours")
        rows = table("what", "count", "net", right=("count", "net"))
        for other in found.not_ours:
            rows.add_row(
                escaped(other.what), str(other.count), money(other.net_minor, other.currency)
            )
        print_table(rows)
    if found.settled:
        say()
        say("[green]the books agree with Stripe to the cent[/green]")
        return
    heading(f"{found.disagreement_count} disagreements")
    rows = table("kind", "id", "purchase", "Stripe says", "the books say")
    for left in found.disagreements:
        row = (left.kind, left.id, left.purchase or "-", left.theirs, left.ours)
        rows.add_row(*map(escaped, row))
    print_table(rows)


def _payouts(found: Reconciliation) -> Table:
    columns = ("amount", "cleared", "not ours", "of failed payouts", "left on clearing")
    rows = table("payout", *columns, right=columns)
    for each in found.payouts:
        amounts = (
            *(each.amount_minor, each.booked_minor, each.not_ours_minor, each.carried_minor),
            each.left_minor,
        )
        style = "red" if each.left_minor else "green"
        texts = [money(amount, each.currency) for amount in amounts]
        rows.add_row(escaped(each.id), *texts[:-1], f"[{style}]{texts[-1]}[/{style}]")
    return rows


@contextmanager
def _watched() -> Iterator[Callable[[str, int], None] | None]:
    """Show on a terminal what is being looked at: how much of it there is, nobody knows before."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} {task.description}"))
    with Progress(*columns, console=screen, transient=True) as shown:
        task = shown.add_task("events", total=None)
        yield lambda kind, done: shown.update(task, completed=done, description=WORDS[kind])
