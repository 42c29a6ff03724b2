"""Generated plans, accounts and requests: whatever the kinds of policies can make of one another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

from policies.policy_set import PolicySet
from policies.request import Circumstances, Request, SpendCap
from policies.state import LotView, burn_order
from policies.window import Zones
from quota.prefilter.facts import Facts
from quota.prefilter.prints import key_print, member_print
from quota.prefilter.state import AccountState, Lease, Taken

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
ACCOUNT = "u_42"
MEMBERS = (None, "ann", "bob")
SOURCES = ("free", "bonus", "weekly")
ZONES = ("UTC", "Europe/Berlin", "America/New_York")


class World(NamedTuple):
    policy_set: PolicySet
    request: Request
    circumstances: Circumstances
    state: AccountState
    member: str | None
    now: datetime


def window() -> st.SearchStrategy[dict[str, Any]]:
    rolling = st.sampled_from(["1h", "5h", "24h", "7d", "1mo"]).map(lambda per: {"per": per})
    calendar = st.tuples(st.sampled_from(["24h", "7d", "1mo"]), st.none() | st.sampled_from(ZONES))
    return rolling | calendar.map(
        lambda pair: (
            {"per": pair[0], "window": "calendar"} | ({"timezone": pair[1]} if pair[1] else {})
        )
    )


SCOPE = st.sampled_from(["account", "member"])
RATES = st.builds(
    lambda limit, per, burst, scope: (
        {"kind": "rate", "limit": limit, "per": per, "scope": scope}
        | ({"burst": burst} if burst else {})
    ),
    st.integers(1, 7),
    st.sampled_from(["1s", "7s", "1m", "24h"]),
    st.none() | st.integers(1, 9),
    SCOPE,
)
CONCURRENCY = st.builds(
    lambda limit, scope: {"kind": "concurrency", "limit": limit, "scope": scope},
    st.integers(1, 4),
    SCOPE,
)
USAGE = st.builds(
    lambda units, per, scope, sources, exhausted: {
        "kind": "usage",
        "units": units,
        "scope": scope,
        **per,
        "sources": sources,
        "when_exhausted": exhausted,
    },
    st.integers(1, 12),
    window(),
    SCOPE,
    st.lists(st.sampled_from([*SOURCES, "credits"]), max_size=2, unique=True),
    st.sampled_from(["deny", "next_source"]),
)
SPEND = st.builds(
    lambda limit, per, scope: {"kind": "spend", "limit": limit, "scope": scope, **per},
    st.integers(1, 900)
    | st.builds(lambda a, b: {"usd": a, "eur": b}, st.integers(1, 900), st.integers(1, 900)),
    window(),
    SCOPE,
)
ALLOWANCE = st.builds(
    lambda units, per, scope, split: {
        "kind": "allowance",
        "units": units,
        "scope": scope,
        "split": split,
        **per,
    },
    st.integers(1, 9),
    window(),
    SCOPE,
    st.booleans(),
)
CREDITS = st.builds(lambda split: {"kind": "credits", "split": split}, st.booleans())


@st.composite
def policy_sets(draw: st.DrawFn) -> PolicySet:
    allowances = draw(st.lists(ALLOWANCE, max_size=3))
    sources = [{**each, "name": name} for each, name in zip(allowances, SOURCES, strict=False)]
    if draw(st.booleans()) or not sources:
        sources.insert(draw(st.integers(0, len(sources))), draw(CREDITS))
    names = [each.get("name", "credits") for each in sources]
    limits = draw(st.lists(RATES | CONCURRENCY | USAGE | SPEND, max_size=4))
    for limit in limits:
        if limit["kind"] == "usage":
            limit["sources"] = [name for name in limit["sources"] if name in names]
        if limit["kind"] == "spend" and "credits" not in names:
            limit["kind"] = "concurrency"
            limit |= {"limit": 2}
            for key in ("per", "window", "timezone"):
                limit.pop(key, None)
    weights = {name: draw(st.integers(1, 5)) for name in names}
    value = {
        "schema": 1,
        "currency": "usd",
        "operations": {
            "make": {"gpu_cost": {"usd": "0.01"}, "hold_for": "1h", "weight": weights},
            "ping": {"limits_only": True, "hold_for": "10m"},
        },
        "plans": {
            "p": {
                "limits": limits,
                "sources": sources,
                "paid_use": draw(st.sampled_from(["auto", "ask", "never"])),
            }
        },
        "default_plan": "p",
        "packs": {"ten": {"units": 10, "price": {"usd": "4.00"}}},
    }
    return parsed(value)


def parsed(value: dict[str, Any]) -> PolicySet:
    import yaml

    return PolicySet.parse(yaml.safe_dump(value, sort_keys=False))


@st.composite
def states(draw: st.DrawFn, policy_set: PolicySet) -> AccountState:
    ago = st.integers(0, 8 * 86_400) | st.sampled_from([0, 3600, 5 * 3600, 86_400, 7 * 86_400])
    members = st.sampled_from(MEMBERS).map(lambda name: member_print(ACCOUNT, name))
    prints = [key_print(ACCOUNT, f"old-{index}") for index in range(12)]
    lots = tuple(
        sorted(
            (draw(lots_numbered(number)) for number in range(1, draw(st.integers(0, 3)) + 1)),
            key=burn_order,
        )
    )
    uses, leases = [], []
    for raw in prints[: draw(st.integers(0, 8))]:
        member, at = draw(members), START - timedelta(seconds=draw(ago))
        lot = None
        if lots and draw(st.integers(0, 3)) == 0:
            lot = (
                draw(st.sampled_from(lots)).number,
                draw(st.integers(0, 300)),
                draw(st.sampled_from(["usd", "eur"])),
            )
        source = "credits" if lot else draw(st.sampled_from(SOURCES))
        uses.append(Taken(source, at, draw(st.integers(1, 4)), member, raw, lot))
        if draw(st.integers(0, 2)) == 0:
            expires = START + timedelta(seconds=draw(st.sampled_from([-60, 0, 1, 600])))
            leases.append(Lease(expires, member, raw, draw(st.booleans()), bool(lot)))
    rates = {}
    for limit in policy_set.rules("p", "make").limits:
        if limit.kind == "rate" and draw(st.booleans()):
            scale = draw(st.sampled_from([getattr(limit, "limit", 1), 3]))
            ahead = draw(st.integers(-1_000_000, 20_000_000))
            tat = (int(START.timestamp()) * 1_000_000 + ahead) * scale + draw(
                st.integers(0, scale - 1)
            )
            scoped = getattr(limit, "scope", "account") == "member"
            rates[limit.label, draw(members) if scoped else None] = (tat, scale)
    zones = Zones(draw(st.sampled_from(ZONES)))
    cap = draw(
        st.none()
        | st.builds(SpendCap, st.integers(1, 900), st.sampled_from(["day", "week", "month"]))
    )
    facts = Facts(
        None,
        zones,
        draw(st.sampled_from([None, "auto", "ask", "never"])),
        cap,
        draw(st.integers(0, 9)) == 0,
    )
    return AccountState(
        seq=9,
        at=START,
        facts=facts,
        book_id=7,
        rates=rates,
        lots=lots,
        leases=tuple(leases),
        uses=tuple(uses),
        keys=tuple(prints),
        reach=400 * 86_400_000_000,
    )


@st.composite
def lots_numbered(draw: st.DrawFn, number: int) -> LotView:
    units = draw(st.integers(1, 10))
    return LotView(
        id=f"lot_7_{number}",
        units=units,
        price_minor=draw(st.integers(0, 500)),
        currency=draw(st.sampled_from(["usd", "eur"])),
        available=draw(st.integers(1, units)),
        priority=draw(st.integers(0, 1)),
        expires_at=draw(st.none() | st.sampled_from([START, START + timedelta(days=1)])),
        created_at=START - timedelta(days=draw(st.integers(0, 3))),
        number=number,
    )


@st.composite
def worlds(draw: st.DrawFn, operation: str = "make") -> World:
    policy_set = draw(policy_sets())
    state = draw(states(policy_set))
    member = draw(st.sampled_from(MEMBERS))
    consent = draw(st.booleans() | st.integers(0, 5))
    asked = None if member is None else member_print(ACCOUNT, member).hex()
    request = policy_set.request(operation, {}, asked, consent)
    return World(policy_set, request, state.facts.circumstances("p"), state, member, START)
