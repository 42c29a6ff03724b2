"""What of an object seen just now is news, what steps back, and when amounts disagree: rules without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.payments import Payment
from billing.stripe.facts import Facts, Terms, joined
from billing.stripe.progress import Walk
from billing.stripe.reconcile import (
    Applied,
    Disagreement,
    NotOurs,
    PayoutCheck,
    Reconciliation,
    differences,
    news,
    steps_back,
)

TERMS = Terms(400, "usd")
NOW = 1_000
PAID = Payment(paid=True, total_minor=400)


def session(status: str, at: int = 10, total: int = 400) -> Facts:
    return {"session": {"cs": {"status": status, "total": total, "at": at}}}


def refund(status: str, at: int = 10, amount: int = 100) -> Facts:
    return {"refund": {"re": {"status": status, "amount": amount, "at": at}}}


def dispute(status: str, at: int = 10) -> Facts:
    return {"dispute": {"du": {"status": status, "amount": 400, "at": at}}}


def move(of: str, amount: int, *, key: str = "txn", currency: str = "usd", fee: int = 0) -> Facts:
    item = {"status": "pending", "of": of, "amount": amount, "fee": fee, "currency": currency}
    return {"move": {key: item}}


def all_of(*facts: Facts) -> Facts:
    known: Facts = {}
    for each in facts:
        known = joined(known, each)
    return known


@pytest.mark.parametrize(
    ("known", "seen", "fresh"),
    [
        ({}, session("paid"), session("paid")),
        ({}, session("open"), None),
        (session("paid", 20), session("paid", 10), None),
        (session("complete", 20), session("paid", 10), session("paid", 10)),
        (session("paid", 20), session("complete", 10), None),
        (session("paid", 20, 400), session("paid", 10, 300), session("paid", NOW, 300)),
        (move("ch", 400), move("ch", 400), None),
        ({}, move("ch", 400), move("ch", 400)),
    ],
)
def test_what_is_lacking_or_has_changed_is_news(known, seen, fresh):
    assert news(known, seen, NOW) == fresh


@given(st.data())
@settings(max_examples=200)
def test_what_was_heard_once_is_no_news_any_more(data):
    statuses = st.sampled_from(("open", "complete", "expired", "paid"))
    known, seen = (
        session(
            data.draw(statuses), data.draw(st.integers(0, NOW - 1)), data.draw(st.integers(0, 3))
        )
        for _ in range(2)
    )
    fresh = news(known, seen, NOW)
    if fresh is not None:
        assert news(joined(known, fresh), seen, NOW) is None


@pytest.mark.parametrize(
    ("known", "seen", "says"),
    [
        (session("paid"), session("open"), [("session", "open", "paid")]),
        (session("paid", NOW), session("open"), []),
        (session("failed"), session("complete"), []),
        (refund("failed"), refund("succeeded"), [("refund", "succeeded", "failed")]),
        (refund("succeeded"), refund("pending"), [("refund", "pending", "succeeded")]),
        (dispute("lost"), dispute("under_review"), [("dispute", "under_review", "lost")]),
        (session("open"), session("paid"), []),
    ],
)
def test_what_stripe_takes_back_disagrees_unless_it_is_only_younger(known, seen, says):
    found = steps_back("pu", known, seen, NOW)
    assert [(each.kind, each.theirs, each.ours) for each in found] == says


CHARGED = move("ch", 400, fee=42)


@pytest.mark.parametrize(
    ("facts", "state", "says"),
    [
        (CHARGED, PAID, []),
        (
            move("ch", 380),
            PAID,
            [("amount", "380 usd (minor units)", "400 usd (minor units)")],
        ),
        (move("ch", 380), Payment(), []),
        (
            move("ch", 360, currency="eur", fee=9),
            PAID,
            [("currency", "360 eur, fee 9 (minor units)", "paid in usd")],
        ),
        (all_of(CHARGED, refund("succeeded"), move("re", -100, key="b")), PAID, []),
        (
            all_of(CHARGED, refund("succeeded"), move("re", -90, key="b")),
            PAID,
            [("refund", "-90 usd (minor units)", "-100 usd (minor units)")],
        ),
        (
            all_of(CHARGED, refund("failed"), move("re", -100, key="b")),
            PAID,
            [("refund", "-100 usd (minor units)", "0 usd (minor units)")],
        ),
        (all_of(CHARGED, refund("failed", NOW), move("re", -100, key="b")), PAID, []),
        (all_of(CHARGED, refund("succeeded")), PAID, []),
        (all_of(CHARGED, dispute("lost"), move("du", -400, key="b", fee=1500)), PAID, []),
        (
            all_of(CHARGED, dispute("won"), move("du", -400, key="b", fee=1500)),
            PAID,
            [("dispute", "-400 usd (minor units)", "0 usd (minor units)")],
        ),
        (all_of(CHARGED, dispute("needs_response"), move("du", -400, key="b")), PAID, []),
    ],
)
def test_what_has_moved_is_held_against_what_was_booked(facts: Any, state: Any, says: Any):
    found = differences("pu", facts, TERMS, state, NOW)
    assert [(each.kind, each.theirs, each.ours) for each in found] == says


def test_what_was_found_so_far_is_stored_and_read_as_it_was():
    at = datetime(2026, 9, 1, 12, 30, 15, 250_000, tzinfo=UTC)
    found = Reconciliation(at, at.replace(day=2))
    found.count("event", 7)
    found.apply("event", "evt_1", "paid")
    found.disagree(Disagreement("amount", "txn", "pu", "1", "2"))
    found.disagree(Disagreement("amount", "txn", "pu", "1", "2"))
    found.payouts.append(PayoutCheck("po", "usd", 100, 50, 40, 10))
    found.leave("stripe_fee", "usd", -30)
    found.leave("stripe_fee", "usd", -20)
    found.since_then(at.replace(day=3))
    assert found.disagreement_count == 1
    assert found.not_ours == [NotOurs("stripe_fee", "usd", 2, -50)]
    assert found.applied == [Applied("event", "evt_1", "paid")]
    walk = Walk(found, 3, "re_7", {"pu"}, {"po_1": "failed"}, {"po_2"})
    assert Walk.of(3, "re_7", walk.text()) == walk
