"""What changes for whom when one policy set takes the place of another: on resolved plans, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction

from policies.change import Change, Effect, Part, grouped, more_is
from policies.diff_operations import diff_operations
from policies.fields import to_minor
from policies.kinds.budget import Budget
from policies.part import canonical_decimal, spell
from policies.policy import Limit, Policy, Source
from policies.policy_set import Pack, Plan, PolicySet
from policies.rules import named
from policies.words import joined, money, percent, policy_words, quantity_words, release_words


def diff(old: PolicySet, new: PolicySet) -> list[Change]:
    """Return what changes from `old` to `new`, in a fixed order; nothing for equal versions."""
    if old.version == new.version:
        return []
    return [
        *_plans(old, new),
        *diff_operations(old, new),
        *_packs(old, new),
        *_gpus(old, new),
        *_budgets(old, new),
        *_releases(old, new),
        *_settings(old, new),
    ]


# --- plans --------------------------------------------------------------------------------------


def _plans(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    for name in sorted(set(old.plans) - set(new.plans)):
        stay = "requests of accounts that are still on it are refused until they are set to another"
        yield Change(
            "plan", f"plans.{name}", (name,), f"plan {name} is removed: {stay}", "tightens"
        )
    for name in sorted(set(new.plans) - set(old.plans)):
        sources = joined(_named_words(source) for source in named(new.plan(name).sources))
        text = f"plan {name} is new: {sources or 'no sources'}"
        yield Change("plan", f"plans.{name}", (name,), text)
    common = sorted(set(old.plans) & set(new.plans))
    inherits = {name: new.plans[name].extends for name in common}
    parts = [
        (name, part)
        for name in common
        for part in _plan(f"plans.{name}", old.plan(name), new.plan(name))
    ]
    yield from grouped("plan", parts, inherits)
    for name in common:
        before, after = old.plans[name].extends, new.plans[name].extends
        if before != after:
            text = (
                f"plan {name} extends {after or 'no other'}, and not {before or 'none'} as before"
            )
            yield Change("plan", f"plans.{name}.extends", (name,), text)


def _plan(where: str, old: Plan, new: Plan) -> Iterator[Part]:
    yield from _policies(f"{where}.sources", named(old.sources), named(new.sources))
    yield from _policies(f"{where}.limits", named(old.limits), named(new.limits))
    if old.paid_use != new.paid_use:
        yield Part(f"{where}.paid_use", f"paid use {old.paid_use} -> {new.paid_use}")
    yield from _plan_price(f"{where}.price", old, new)


def _plan_price(where: str, old: Plan, new: Plan) -> Iterator[Part]:
    before, after = _plan_amounts(old), _plan_amounts(new)
    if before == after:
        return
    effect: Effect = "neutral"
    if old.price and new.price and old.price.every == new.price.every:
        effect = _price_effect(old.price.amounts, new.price.amounts)
    yield Part(where, f"price {before} -> {after}", effect)


def _plan_amounts(plan: Plan) -> str:
    if plan.price is None:
        return "none"
    amounts = joined(
        _amount(value, currency) for currency, value in sorted(plan.price.amounts.items())
    )
    return f"{amounts} every {plan.price.every}"


def _policies(where: str, old: tuple[Policy, ...], new: tuple[Policy, ...]) -> Iterator[Part]:
    before, after = {p.label: p for p in old}, {p.label: p for p in new}
    takes: tuple[Effect, Effect] = ("tightens", "loosens")
    if any(isinstance(policy, Limit) for policy in (*old, *new)):
        takes = ("loosens", "tightens")
    for label, policy in before.items():
        if label not in after:
            what = f"{_named_words(policy)} is removed"
            yield Part(f"{where}.{label}", what, takes[0])
    for label, policy in after.items():
        if label not in before:
            yield Part(f"{where}.{label}", f"{_named_words(policy)} is added", takes[1])
        elif spell(before[label]) != spell(policy):
            yield from _policy(f"{where}.{label}", before[label], policy)
    kept = [label for label in before if label in after]
    order = [label for label in after if label in before]
    if kept != order and isinstance(next(iter(new), None), Source):
        yield Part(where, f"sources are tried in the order {', '.join(after)}")


def _policy(where: str, old: Policy, new: Policy) -> Iterator[Part]:
    """Say how one policy changes; nothing where only the way it is written does."""
    (amount, what), (new_amount, new_what) = quantity_words(old), quantity_words(new)
    name = f"{new.label}"
    if what == new_what and amount != new_amount:
        effect = more_is("loosens", *_amounts(old, new))
        yield Part(where, f"{name} {amount} -> {new_amount} {new_what}", effect)
    elif (amount, what) != (new_amount, new_what):
        words = f"{policy_words(old)} -> {policy_words(new)}"
        yield Part(where, f"{name}: {words}")
    elif old.kind != new.kind:
        yield Part(where, f"{name}: kind {old.kind} -> {new.kind}")


def _amounts(old: Policy, new: Policy) -> tuple[int | Fraction, int | Fraction]:
    for key in ("units", "limit", "usd_per_day"):
        before, after = getattr(old, key, None), getattr(new, key, None)
        if isinstance(before, (int, Decimal)) and isinstance(after, (int, Decimal)):
            return Fraction(before), Fraction(after)
    return 0, 0


def _named_words(policy: Policy) -> str:
    return f"{policy.label} ({policy_words(policy)})"


# --- packs, GPUs, budgets, releases -------------------------------------------------------------


def _packs(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    for name in sorted({*old.packs, *new.packs}):
        where, before, after = f"packs.{name}", old.packs.get(name), new.packs.get(name)
        if before is None and after is not None:
            text = f"pack {name} is new: {_pack(after, new)}"
            yield Change("pack", where, (), text, "loosens")
        elif after is None and before is not None:
            text = f"pack {name} is no longer sold: units bought before stay as they are"
            yield Change("pack", where, (), text, "tightens")
        elif before is not None and after is not None:
            yield from _pack_changes(where, name, (before, old), (after, new))


def _pack(pack: Pack, policy_set: PolicySet) -> str:
    valid = f"valid {pack.valid_for}" if pack.valid_for else "valid for ever"
    return f"{pack.units:,} units for {_prices(_by_currency(pack, policy_set))}, {valid}"


def _pack_changes(
    where: str, name: str, old: tuple[Pack, PolicySet], new: tuple[Pack, PolicySet]
) -> Iterator[Change]:
    before, after = old[0], new[0]
    prices, new_prices = _by_currency(*old), _by_currency(*new)
    if prices != new_prices:
        effect = _price_effect(prices, new_prices)
        text = f"pack {name}: {_prices(prices)} -> {_prices(new_prices)}"
        yield Change("pack", f"{where}.price", (), text, effect)
    if before.units != after.units:
        text = f"pack {name}: {before.units:,} -> {after.units:,} units"
        effect = more_is("loosens", before.units, after.units)
        yield Change("pack", f"{where}.units", (), text, effect)
    if before.valid_for != after.valid_for:
        valid = f"{before.valid_for or 'for ever'} -> {after.valid_for or 'for ever'}"
        text = f"pack {name}: valid {valid}, for what is bought from now on"
        yield Change("pack", f"{where}.valid_for", (), text, _longer(before, after))
    if before.priority != after.priority:
        text = f"pack {name}: priority {before.priority} -> {after.priority} in the order of use"
        yield Change("pack", f"{where}.priority", (), text)


def _longer(old: Pack, new: Pack) -> Effect:
    before, after = old.valid_for, new.valid_for
    if before is None or after is None:
        return "loosens" if after is None else "tightens"
    if before.is_calendar != after.is_calendar:
        return "neutral"
    return more_is("loosens", before.months + before.micros, after.months + after.micros)


def _by_currency(pack: Pack, policy_set: PolicySet) -> Mapping[str, Decimal]:
    return {policy_set.currency: pack.price} if isinstance(pack.price, Decimal) else pack.price


def _prices(prices: Mapping[str, Decimal]) -> str:
    return joined(_amount(amount, currency) for currency, amount in sorted(prices.items()))


def _amount(amount: Decimal, currency: str) -> str:
    try:
        return money(to_minor(amount, currency), currency)
    except ValueError:
        return f"{canonical_decimal(amount)} {currency}"


def _price_effect(old: Mapping[str, Decimal], new: Mapping[str, Decimal]) -> Effect:
    if set(old) != set(new):
        return "neutral"
    effects = {more_is("tightens", Fraction(old[key]), Fraction(new[key])) for key in old}
    effects.discard("neutral")
    return effects.pop() if len(effects) == 1 else "neutral"


def _gpus(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    for name in sorted({*old.gpus, *new.gpus}):
        where, before, after = f"gpus.{name}", old.gpus.get(name), new.gpus.get(name)
        if before is None and after is not None:
            price = f"${canonical_decimal(after.usd_per_hour)} per hour"
            yield Change("gpu", where, (), f"GPU {name} is new: {price}")
        elif after is None:
            text = f"GPU {name} is removed: grants in flight keep the price they were made under"
            yield Change("gpu", where, (), text)
        elif before is not None and before.usd_per_hour != after.usd_per_hour:
            change = percent(Fraction(before.usd_per_hour), Fraction(after.usd_per_hour))
            prices = f"{_hourly(before.usd_per_hour)} -> {_hourly(after.usd_per_hour)}"
            yield Change("gpu", where, (), f"GPU {name}: {prices} per hour ({change})")


def _hourly(price: Decimal) -> str:
    text = canonical_decimal(price)
    whole, _, digits = text.partition(".")
    return f"${whole}.{digits.ljust(2, '0')}"


def _budgets(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    for name in sorted({*old.budgets, *new.budgets}):
        where, before, after = f"budgets.{name}", old.budgets.get(name), new.budgets.get(name)
        if before is None and after is not None:
            text = f"budget {name} is new: {policy_words(after)}"
            yield Change("budget", where, (), text, "tightens")
        elif after is None and before is not None:
            text = f"budget {name} is removed: {policy_words(before)} no longer holds"
            yield Change("budget", where, (), text, "loosens")
        elif isinstance(before, Budget) and isinstance(after, Budget):
            for part in _policy(where, before, after):
                yield Change("budget", where, (), f"budget {part.what}", part.effect)


def _releases(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    reasons = {*old.on_release, *new.on_release, "default"}
    for reason in sorted(reasons, key=lambda each: (each == "default", each)):
        before, after = old.release_rule(reason), new.release_rule(reason)
        words, new_words = release_words(before), release_words(after)
        if words == new_words:
            continue
        effect: Effect = "neutral"
        if before.units != after.units:
            effect = "tightens" if after.units == "charge" else "loosens"
        elif before.ours != after.ours:
            effect = "loosens" if after.ours else "tightens"
        what = "any reason not listed" if reason == "default" else f"`{reason}`"
        text = f"release for {what}: {words} -> {new_words}"
        yield Change("release", f"on_release.{reason}", (), text, effect)


def _settings(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    if old.default_plan != new.default_plan:
        plans = f"{old.default_plan} -> {new.default_plan}"
        text = f"default plan {plans}, for accounts that have none of their own"
        yield Change("setting", "default_plan", (old.default_plan, new.default_plan), text)
    if old.currency != new.currency:
        text = f"currency {old.currency} -> {new.currency}: prices that name none are in it"
        yield Change("setting", "currency", (), text)
    if old.on_expire != new.on_expire:
        effect: Effect = "tightens" if new.on_expire == "charge" else "loosens"
        words = {"charge": "units are charged", "return_units": "units come back"}
        text = f"a grant that expires: {words[old.on_expire]} -> {words[new.on_expire]}"
        yield Change("setting", "on_expire", (), text, effect)
    if old.on_late_settle != new.on_late_settle:
        effect = "loosens" if new.on_late_settle == "forgive" else "tightens"
        words = {"forgive": "free", "charge_if_available": "charged if units are available"}
        late = f"{words[old.on_late_settle]} -> {words[new.on_late_settle]}"
        text = f"work delivered after its grant expired: {late}"
        yield Change("setting", "on_late_settle", (), text, effect)
    if old.on_dispute != new.on_dispute:
        effect = "loosens" if new.on_dispute == "continue" else "tightens"
        words = {"continue": "goes on", "stop_paid_use": "stops"}
        uses = f"{words[old.on_dispute]} -> {words[new.on_dispute]}"
        text = f"use of credits while a payment is disputed: {uses}"
        yield Change("setting", "on_dispute", (), text, effect)
    if old.past_due_grace != new.past_due_grace:
        text = f"past_due_grace: {old.past_due_grace} -> {new.past_due_grace}"
        yield Change("setting", "past_due_grace", (), text)
