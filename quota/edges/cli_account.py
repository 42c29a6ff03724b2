"""`comptroller account`: one account, what it has, why it was denied, and its settings."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from policies.errors import InvalidRequest
from policies.instants import Length
from policies.words import money
from quota.clock import system_clock
from quota.denials import DenialRecord
from quota.edges import show_account
from quota.edges.common import (
    DATABASE_DEFAULT,
    POLICIES_DEFAULT,
    Account,
    AsJson,
    Database,
    Policies,
    clock_text,
    escaped,
    grant_json,
    instant,
    opened,
    plain,
    print_json,
    say,
    several,
)

app = typer.Typer(
    help="One account: what it has, why it was denied, its settings.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Count = Annotated[int, typer.Option("--most", min=1, max=1000, help="How many, at most.")]


@app.command()
def show(
    account: Account,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help="What happened around this time (UTC): '2026-09-01 14:03', 'yesterday 14:03'.",
        ),
    ] = None,
    around: Annotated[
        str, typer.Option("--around", metavar="LENGTH", help="How far around --at to look.")
    ] = "15m",
    most: Count = 10,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show an account's balance, its latest grants, and why it was denied.

    With --at it tells why somebody was denied yesterday at 14:03.

    [dim]Example: comptroller account show u_42 --at 'yesterday 14:03'[/dim]
    """
    moment = instant(at, "at")
    before: Sequence[DenialRecord] = ()
    with opened(database, policies) as comptroller:
        balance = comptroller.balance(account)
        if moment is None:
            grants = comptroller.grants(account, most=most)
            denials = comptroller.denials(account, most=most)
        else:
            span = _length(around, "around").after(moment) - moment
            until = moment + span
            denials = comptroller.denials(account, moment - span, until, most=most)
            before = comptroller.denials(account, until=moment, most=1)
            every = comptroller.grants(account, most=1000)
            grants = [grant for grant in every if moment - span <= grant.at < until][:most]
        tags, budgets = comptroller.tags(account), comptroller.policies.budgets
    if as_json:
        shown: dict[str, Any] = {"balance": balance, "tags": tags, "denials": denials}
        print_json({**plain(shown), "grants": [grant_json(grant) for grant in grants]})
        return
    if moment is None:
        show_account.balance(balance, tags)
        if not (grants or denials or balance.lots or tags):
            say("\n[dim]nothing was ever asked for or given under this name[/dim]")
            return
        show_account.grants(grants, "latest grants")
        show_account.denials(denials, "latest denials", budgets=budgets)
    else:
        show_account.around(account, moment, around, grants, denials, before, budgets=budgets)


@app.command()
def grants(
    account: Account,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that are live.")] = False,
    most: Count = 50,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List an account's grants, the newest first.

    [dim]Example: comptroller account grants u_42 --open[/dim]
    """
    with opened(database, policies) as comptroller:
        found = comptroller.grants(account, open_only=only_open, most=most)[:most]
    if as_json:
        print_json([grant_json(grant) for grant in found])
    else:
        show_account.grants(found, "open grants" if only_open else "grants")


@app.command("set-plan")
def set_plan(
    account: Account,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A plan of the policy file.")],
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Put an account on a plan. Its usage stays what it is.

    [dim]Example: comptroller account set-plan u_42 pro[/dim]
    """
    with opened(database, policies) as comptroller:
        comptroller.set_plan(account, plan)
    _done(as_json, f"{account} is on plan {plan}", account=account, plan=plan)


@app.command("add-credits")
def add_credits(
    account: Account,
    units: Annotated[int, typer.Argument(metavar="UNITS", help="How many.")],
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Given once per reference; the default is a new one."),
    ] = None,
    origin: Annotated[str, typer.Option("--origin", help="Why they are given.")] = "promotion",
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="When they expire: a time, or 30d."),
    ] = None,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Give an account credits that nobody paid for.

    [dim]Example: comptroller account add-credits u_42 10 --expires 30d --reference launch[/dim]
    """
    with opened(database, policies) as comptroller:
        lot = comptroller.add_credits(
            account,
            units=units,
            origin=origin,
            reference=reference or f"cli-{uuid.uuid4()}",
            expires_at=None if expires is None else _expiry(expires),
        )
    if as_json:
        print_json(lot)
        return
    again = " were given before under this reference" if lot.replayed else ""
    until = f", good until {clock_text(lot.expires_at)}" if lot.expires_at else ""
    say(f"{escaped(account)}: {several(lot.units, 'credit')} in {lot.id}{until}{again}")


@app.command("record-purchase")
def record_purchase(
    account: Account,
    pack: Annotated[str, typer.Argument(metavar="PACK", help="A pack of the policy file.")],
    reference: Annotated[str, typer.Option("--reference", help="The payment's own number.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="When it was paid, if not now.")
    ] = None,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Record a pack that was paid for elsewhere, once per reference.

    [dim]Example: comptroller account record-purchase u_42 ten --reference order-77[/dim]
    """
    with opened(database, policies) as comptroller:
        lot = comptroller.record_purchase(
            account, pack=pack, reference=reference, at=instant(at, "at")
        )
    if as_json:
        print_json(lot)
        return
    again = " (recorded before under this reference)" if lot.replayed else ""
    price = money(lot.price_minor, lot.currency)
    say(f"{escaped(account)}: {several(lot.units, 'credit')} for {price} in {lot.id}{again}")


@app.command("set-paid-use")
def set_paid_use(
    account: Account,
    paid_use: Annotated[
        Literal["auto", "ask", "never"],
        typer.Argument(help="Use credits without asking, on consent, or never."),
    ],
    cap: Annotated[
        int | None, typer.Option("--cap-minor", min=0, help="A cap, in minor units: cents.")
    ] = None,
    per: Annotated[
        Literal["day", "week", "month"], typer.Option("--per", help="The cap's period.")
    ] = "month",
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Say whether an account's credits may be used, and cap what they may cost.

    [dim]Example: comptroller account set-paid-use u_42 ask --cap-minor 2000 --per month[/dim]
    """
    with opened(database, policies) as comptroller:
        comptroller.set_paid_use(account, paid_use, spend_cap_minor=cap, spend_cap_per=per)
    _done(as_json, f"{account}: paid use {paid_use}", account=account, paid_use=paid_use)


@app.command()
def freeze(
    account: Account,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why.")] = "frozen by hand",
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Deny every request of an account from now on. Open grants run on.

    [dim]Example: comptroller account freeze u_42 --reason 'chargeback'[/dim]
    """
    with opened(database, policies) as comptroller:
        comptroller.freeze(account, reason=reason)
    _done(as_json, f"{account} is frozen: {reason}", account=account, frozen=True)


@app.command()
def unfreeze(
    account: Account,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Let an account's requests be decided again."""
    with opened(database, policies) as comptroller:
        comptroller.unfreeze(account)
    _done(as_json, f"{account} is not frozen", account=account, frozen=False)


@app.command()
def forget(
    account: Account,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Erase an account's name, keys and free text for good. The books stay provable."""
    if not yes and not _confirmed(f"Erase {account} for good?"):
        raise InvalidRequest("nothing was erased: answer y, or give --yes")
    with opened(database, policies) as comptroller:
        found = comptroller.forget(account)
    text = f"{account} is forgotten" if found else f"there was nothing about {account}"
    _done(as_json, text, account=account, found=found)


def add_to(root: typer.Typer) -> None:
    """Offer the everyday commands at the top level too: `comptroller grants u_42`."""
    for name, command in (
        ("grants", grants),
        ("set-plan", set_plan),
        ("add-credits", add_credits),
        ("freeze", freeze),
        ("unfreeze", unfreeze),
    ):
        root.command(name, hidden=True)(command)


def _confirmed(question: str) -> bool:
    """Ask on stderr, so that stdout stays what machines read. Where nobody answers, the answer is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        sys.stderr.write("\n")
    return answer.strip().lower() in ("y", "yes")


def _done(as_json: bool, text: str, **facts: object) -> None:
    if as_json:
        print_json(facts)
    else:
        say(escaped(text))


def _length(text: str, name: str) -> Length:
    try:
        return Length.parse(text)
    except ValueError as error:
        raise InvalidRequest(f"--{name}: {error}") from None


def _expiry(text: str) -> Any:
    try:
        return Length.parse(text).after(system_clock())
    except ValueError:
        return instant(text, "expires")
