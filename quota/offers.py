"""What is offered to a buyer: a pack or a plan as the policy file has it now."""

from __future__ import annotations

import uuid
from typing import Final

from billing.payments import Purchase
from billing.plans import PLAN
from billing.stripe.plan_prices import recurring
from billing.stripe.purchases import Sale
from policies.errors import InvalidRequest
from policies.policy_set import PolicySet
from quota.ask import name

HOW_PRICED: Final = "a plan that is sold has a `price` such as {usd: 20.00, every: 1mo}"


def offer_of(
    policy_set: PolicySet, *, pack: str | None, plan: str | None, currency: str | None
) -> Purchase:
    """Return the offer of a pack or of a plan.

    Raises:
        InvalidRequest: it is none or both of them, there is no such pack or plan, or it is not sold so.
    """
    if pack is not None and plan is None:
        return pack_offer(policy_set, pack, currency)
    if plan is not None and pack is None:
        return plan_offer(policy_set, plan, currency)
    raise InvalidRequest("checkout takes exactly one of pack= and plan=")


def pack_offer(policy_set: PolicySet, pack: str, currency: str | None) -> Purchase:
    """Return the offer of a pack.

    Raises:
        InvalidRequest: there is no such pack, or it is not sold in that currency.
    """
    sold = policy_set.pack(name(pack, "pack"))
    price = sold.price_in(currency or policy_set.currency, policy_set.currency)
    return Purchase(
        id=f"pu_{uuid.uuid4().hex}",
        pack=pack,
        units=sold.units,
        price_minor=price.minor,
        currency=price.currency,
        priority=sold.priority,
        valid_for=None if sold.valid_for is None else str(sold.valid_for),
        policy_version=policy_set.version,
    )


def plan_offer(policy_set: PolicySet, plan: str, currency: str | None) -> Purchase:
    """Return the offer of a plan.

    Raises:
        InvalidRequest: there is no such plan, or it is not sold, or not in that currency, or not through Stripe.
    """
    sold = policy_set.plan(name(plan, "plan"))
    wanted = currency or policy_set.currency
    price = sold.price_in(wanted)
    if sold.price is None or price is None:
        sold_in = "" if sold.price is None else f", but in {', '.join(sorted(sold.price.amounts))}"
        raise InvalidRequest(f"plan `{plan}` is not sold in `{wanted}`{sold_in}: {HOW_PRICED}")
    every = str(sold.price.every)
    recurring(every)  # what Stripe has no period for is not offered
    return Purchase(
        id=f"pu_{uuid.uuid4().hex}",
        pack=plan,
        units=0,
        price_minor=price.minor,
        currency=price.currency,
        priority=0,
        valid_for=every,
        policy_version=policy_set.version,
        kind=PLAN,
    )


def refuse_second(account: str, sales: list[Sale]) -> None:
    """Refuse a subscription beside one that gives a plan.

    Raises:
        InvalidRequest: there is one.
    """
    given = next((sale.standing.plan for sale in sales if sale.standing.plan is not None), None)
    if given is not None:
        raise InvalidRequest(
            f"account `{account}` has a subscription to `{given}`: change that in the customer portal"
        )
