"""Policies, prices and formulas in words, for people who read a check, a diff or an explanation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction

from policies.fields import minor_digits
from policies.instants import Length
from policies.kinds.allowance import Renewing
from policies.kinds.budget import Budget
from policies.kinds.concurrency import ConcurrencyLimit
from policies.kinds.credits import Credits
from policies.kinds.rate import RateLimit
from policies.kinds.spend import SpendLimit
from policies.kinds.usage import UsageLimit
from policies.operation import Operation
from policies.part import canonical_decimal, spell
from policies.policy import Cap, Policy
from policies.policy_set import ReleaseRule
from policies.table import Linear, Table
from policies.units import MICRO_USD, micro_usd
from policies.window import CALENDAR_STEPS, WindowKind


def dollars(micro_usd: int) -> str:
    """Spell micro-dollars exactly, with two digits after the point or as many as it takes."""
    whole, rest = divmod(abs(micro_usd), MICRO_USD)
    digits = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro_usd < 0 else ''}${whole:,}.{digits}"


def money(minor: int, currency: str) -> str:
    """Spell minor units of a currency: `$4.00`, `4.50 eur`, `500 jpy`."""
    digits = minor_digits(currency)
    whole, rest = divmod(abs(minor), 10**digits)
    text = f"{whole:,}" + (f".{rest:0{digits}d}" if digits else "")
    sign = "-" if minor < 0 else ""
    return f"{sign}${text}" if currency == "usd" else f"{sign}{text} {currency}"


def percent(old: int | Fraction, new: int | Fraction) -> str:
    """Spell a relative change, rounded to a tenth: `+20 %`, `-33.3 %`."""
    if old == 0:
        return "from nothing"
    tenths = round(Fraction(new - old) / Fraction(old) * 1000)
    whole, tenth = divmod(abs(tenths), 10)
    sign = "-" if tenths < 0 else "+"
    return f"{sign}{whole}{f'.{tenth}' if tenth else ''} %"


def joined(names: Iterable[str]) -> str:
    """Join names as a sentence does: `a`, `a and b`, `a, b and c`."""
    every = list(names)
    return " and ".join(filter(None, (", ".join(every[:-1]), *every[-1:])))


def at_attributes(attributes: Mapping[str, object]) -> str:
    """Spell attributes: `quality=high, seconds=25`."""
    return ", ".join(f"{name}={_value(value)}" for name, value in sorted(attributes.items()))


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(spell(value))


def window_words(window: WindowKind, length: Length, timezone: str | None) -> str:
    """Spell a window: `rolling 24h`, `calendar day in Europe/Berlin`."""
    if window == "rolling":
        return f"rolling {'24h' if str(length) == '1d' else length}"
    zone = f"in {timezone}" if timezone else "in the account's zone"
    return f"calendar {CALENDAR_STEPS[length]} {zone}"


def quantity_words(policy: Policy) -> tuple[str, str]:
    """Return how much a policy allows and of what: (`30`, `units per rolling 24h`)."""
    match policy:
        case Renewing():
            window = window_words(policy.window, policy.length, policy.timezone)
            part = ", may pay for a part" if policy.split else ""
            return f"{policy.units:,}", f"units per {window}{_each(policy.scope)}{part}"
        case Credits():
            return "", f"bought and given units{', may pay for a part' if policy.split else ''}"
        case RateLimit():
            burst = f", {policy.burst:,} at once" if policy.burst else ""
            return f"{policy.limit:,}", f"requests per {policy.per}{burst}{_each(policy.scope)}"
        case ConcurrencyLimit():
            return f"{policy.limit:,}", f"live grants at a time{_each(policy.scope)}"
        case UsageLimit():
            window = window_words(policy.window, policy.per, policy.timezone)
            return f"{policy.units:,}", f"units per {window}{_each(policy.scope)}{_guarded(policy)}"
        case SpendLimit():
            window = window_words(policy.window, policy.per, policy.timezone)
            return _spend(policy.limit), f"of paid units per {window}{_each(policy.scope)}"
        case Budget():
            amount = dollars(micro_usd(policy.usd_per_day))
            day = f"of estimated GPU cost per day in {policy.timezone}"
            return amount, f"{day}, over all accounts{_guarded(policy)}"
        case _:
            content = spell(policy)
            others = sorted((key, content[key]) for key in content if key not in ("kind", "name"))
            return "", ", ".join(f"{key}: {value}" for key, value in others) or policy.kind


def policy_words(policy: Policy) -> str:
    """Spell a policy: `30 units per rolling 24h`."""
    return " ".join(filter(None, quantity_words(policy)))


def formula_words(formula: int | Decimal | Table | Linear) -> str:
    """Spell a weight or a cost: `3`, `8 + 3.5 x images`, `by seconds (10: 1, 15: 2)`."""
    if isinstance(formula, Table):
        entries = ", ".join(
            f"{' > '.join(path)}: {canonical_decimal(number)}" for path, number in formula.entries()
        )
        return f"by {joined(formula.attributes)} ({entries})"
    if isinstance(formula, Linear):
        terms = [canonical_decimal(formula.base)] if formula.base else []
        for name, factor in sorted(formula.each.items()):
            terms.append(name if factor == 1 else f"{canonical_decimal(factor)} x {name}")
        return " + ".join(terms)
    return canonical_decimal(formula) if isinstance(formula, Decimal) else str(formula)


def hold_words(operation: Operation) -> str:
    """Spell how long a grant may stay open."""
    hold = operation.hold
    if hold.queued == hold.running:
        return str(hold.queued)
    return f"{hold.queued} until started, {hold.running} after"


def release_words(rule: ReleaseRule) -> str:
    """Spell what a release gives back."""
    back = "units come back" if rule.units == "return" else "units are charged"
    ours = f", those of an expired lot for {rule.grace} more, as it was our failure"
    return f"{back}{ours if rule.ours and rule.units == 'return' else ''}"


def _each(scope: str) -> str:
    return " for each member" if scope == "member" else ""


def _guarded(cap: Cap) -> str:
    if not cap.sources:
        return ""
    after = "then the next source" if cap.when_exhausted == "next_source" else "then denied"
    return f", from {joined(cap.sources)}, {after}"


def _spend(limit: int | dict[str, int]) -> str:
    if isinstance(limit, int):
        return f"{limit:,} minor units"
    return joined(money(minor, currency) for currency, minor in sorted(limit.items()))
