"""order-free: any permutation, duplication and delay of one payment's events ends in the same books."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from billing.stripe.facts import _ORDER, Facts, joined
from tests.stripe.copies import Copies, payload_of
from tests.stripe.shop import Shop, opened

FOLLOWED = ("checkout.session", "payment_intent", "refund", "dispute")
EVENTS_MAX = 6


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened() as shop:
        yield shop


def charge_of(shop: Shop) -> str:
    return str(shop.stripe.every("charge")[-1]["id"])


def refunded_twice(shop: Shop, session: str) -> None:
    shop.stripe.pay(session, tax=33)
    payment = shop.stripe.every("payment_intent")[-1]["id"]
    shop.stripe.refund(payment, 111)
    shop.stripe.refund(payment, 99)


def paid_late_and_the_refund_fails(shop: Shop, session: str) -> None:
    shop.stripe.pay_later(session)
    shop.stripe.clear(session)
    payment = shop.stripe.every("payment_intent")[-1]["id"]
    shop.stripe.refund(payment, 150)
    failing = shop.stripe.refund(payment, 100)
    shop.stripe.fail_refund(failing["id"])


def disputed_and_lost(shop: Shop, session: str) -> None:
    shop.stripe.pay(session)
    dispute = shop.stripe.dispute(charge_of(shop))
    shop.stripe.lose(dispute["id"])


def disputed_and_won(shop: Shop, session: str) -> None:
    shop.stripe.pay(session)
    dispute = shop.stripe.dispute(charge_of(shop))
    shop.stripe.win(dispute["id"])


def refunded_and_the_rest_disputed(shop: Shop, session: str) -> None:
    shop.stripe.pay(session)
    shop.stripe.refund(shop.stripe.every("payment_intent")[-1]["id"], 130)
    dispute = shop.stripe.dispute(charge_of(shop), 270)
    shop.stripe.lose(dispute["id"])


def never_paid(shop: Shop, session: str) -> None:
    shop.stripe.pay_later(session)
    shop.stripe.fail(session)


COURSES: list[Callable[[Shop, str], None]] = [
    refunded_twice,
    paid_late_and_the_refund_fails,
    disputed_and_lost,
    disputed_and_won,
    refunded_and_the_rest_disputed,
    never_paid,
]


def course_of(
    shop: Shop, course: Callable[[Shop, str], None], pack: str = "ten"
) -> tuple[str, str, list[bytes]]:
    """What Stripe sends of a course: the purchase, its session, and the events that we follow."""
    checkout = shop.checkout(pack, "somebody", automatic_tax=True)
    course(shop, checkout.session_id)
    followed = [
        payload_of(event)
        for event in shop.stripe.events
        if event["data"]["object"]["object"] in FOLLOWED
    ]
    return checkout.purchase_id, checkout.session_id, followed


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.__name__)
def test_guarantee_order_free_every_order_of_up_to_six_events_ends_the_same(shop, course):
    purchase, session, events = course_of(shop, course)
    # Of what tells the least there may be more than six: that the payment was begun.
    telling = [event for event in events if b'"payment_intent.created"' not in event][:EVENTS_MAX]
    copies = Copies(shop, "ten")
    endings = set()
    for order in itertools.permutations(range(len(telling))):
        account, renamed = copies.of(telling, purchase, session)
        for place in order:
            copies.take_in(renamed[place])
        endings.add(json.dumps(copies.ending(account), default=str))
    assert len(endings) == 1, endings
    assert copies.made >= 24


@pytest.mark.parametrize("seed", range(12))
def test_guarantee_order_free_longer_courses_with_repetitions_and_crashes_end_the_same(shop, seed):
    chance = random.Random(seed)
    purchase, session, events = course_of(
        shop, lambda shop, session: at_random(shop, session, chance)
    )
    copies = Copies(shop, "ten")
    used = chance.randrange(4)
    endings = set()
    for _ in range(8):
        account, renamed = copies.of(events, purchase, session)
        order = [*renamed, *chance.choices(renamed, k=len(renamed) // 2)]
        chance.shuffle(order)
        for payload in order:
            if chance.random() < 0.2:
                crash(shop, copies, payload)
            copies.take_in(payload)
        assert not used or shop.units(account) >= 0
        endings.add(json.dumps(copies.ending(account), default=str))
    assert len(endings) == 1, endings


def at_random(shop: Shop, session: str, chance: random.Random) -> None:
    """Pay, and then whatever may happen to a payment."""
    shop.stripe.pay(session, tax=chance.choice((0, 17, 40)))
    payment = shop.stripe.every("payment_intent")[-1]["id"]
    left = int(shop.stripe.every("charge")[-1]["amount"])
    dispute, over = None, False
    for _ in range(chance.randrange(2, 6)):
        match chance.randrange(3):
            case 0 if left > 1:
                amount = chance.randrange(1, left)
                refund = shop.stripe.refund(payment, amount)
                left -= amount
                if chance.random() < 0.4:
                    shop.stripe.fail_refund(refund["id"])
                    left += amount
            case 1 if left > 1 and dispute is None:
                dispute = shop.stripe.dispute(charge_of(shop), left)
                left = 0
            case 2 if dispute is not None and not over:
                chance.choice((shop.stripe.win, shop.stripe.lose))(dispute["id"])
                over = True
            case _:
                pass


class CrashError(Exception):
    """The process ends before it commits."""


def crash(shop: Shop, copies: Copies, payload: bytes) -> None:
    """Take in an event, and lose all of it before it is committed."""
    with suppress(CrashError), Session(shop.comptroller._db.engine) as host, host.begin():
        copies.take_in(payload, session=host)
        raise CrashError


STATUS = st.sampled_from(sorted(_ORDER))


@st.composite
def facts(draw: Any) -> Facts:
    """Whatever may be known of a payment: some states of a few objects."""
    known: Facts = {}
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(STATUS)
        item = {
            "status": draw(st.sampled_from(_ORDER[kind])),
            "at": draw(st.integers(0, 3)),
            "amount": draw(st.integers(0, 3)),
        }
        known.setdefault(kind, {})[draw(st.sampled_from("ab"))] = item
    return known


@given(facts(), facts(), facts())
@settings(max_examples=300)
def test_what_is_known_does_not_depend_on_the_order_of_hearing_it(one, two, three):
    assert joined(one, two) == joined(two, one)
    assert joined(joined(one, two), three) == joined(one, joined(two, three))
    assert joined(one, one) == one
