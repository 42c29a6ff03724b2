"""Bad input raises a named error, in one line, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from quota import (
    ComptrollerError,
    DeadlinePassed,
    GrantEnded,
    IdempotencyConflict,
    InvalidRequest,
    PaymentNotConfigured,
    UnknownGrant,
    UnknownLot,
)
from tests.world import DAY, HOUR, START, World, a_world

NAIVE = datetime(2026, 3, 3)  # noqa: DTZ001 - that it is naive is the point
LONG = "x" * 201
NAMES = ["", " ", LONG, "a\nb", "a\0b", "a\x7fb", "a\x85b", "\ud800", None, 7, b"u", ["u"]]
NUMBERS = [
    0,
    -1,
    1001,
    1.5,
    float("nan"),
    float("inf"),
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    Decimal("1e999999"),
    Decimal("1.5"),
    Fraction(1, 2),
    10**400,
    True,
    "many",
    [1],
    {},
]


@pytest.fixture
def busy():
    with a_world() as world:
        world.grant(3, key="known")
        world.buy("ten", "order")
        yield world


def refused(world: World, error: type[ComptrollerError], call: Callable[[], Any]) -> None:
    """Make a call that must raise this error, in one line, and change no row."""
    before = world.dump()
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert 0 < len(str(caught.value)) < 400
    assert isinstance(caught.value.retryable, bool)
    assert world.dump() == before


@pytest.mark.parametrize("n", NUMBERS, ids=repr)
def test_a_number_that_is_none_is_refused_as_an_attribute(busy, n):
    refused(busy, InvalidRequest, lambda: busy.admit(n))


@pytest.mark.parametrize("value", NAMES, ids=repr)
@pytest.mark.parametrize("argument", ["account", "operation", "key", "member", "plan"])
def test_a_name_that_is_none_is_refused(busy, argument, value):
    if value is None and argument in ("member", "plan"):
        return
    asked = {"account": "u", "operation": "clip", "key": "new", argument: value}
    refused(busy, InvalidRequest, lambda: busy.comptroller.admit(**asked))


@pytest.mark.parametrize(
    "asked",
    [
        {"operation": "clop"},
        {"plan": "premium"},
        {"attributes": {"m": 1}},
        {"attributes": {"n": None, "prompt": 7}},
        {"attributes": {"prompt": "x" * 501}},
        {"attributes": {"prompt": "\udc80"}},
        {"attributes": {"prompt": "a\0b"}},
        {"attributes": [("n", 1)]},
        {"attributes": "n=1"},
        {"attributes": {7: 1}},
        {"attributes": {f"a{number}": 1 for number in range(60)}},
        {"consent": -1},
        {"consent": 1.0},
        {"consent": "yes"},
        {"consent": None},
        {"consent": 10**13},
        {"not_after": NAIVE},
        {"not_after": "2026-03-03"},
        {"not_after": 7},
    ],
    ids=repr,
)
def test_what_is_unknown_or_of_another_type_is_refused(busy, asked):
    call = {"account": "u", "operation": "clip", "key": "new", **asked}
    refused(busy, InvalidRequest, lambda: busy.comptroller.admit(**call))
    call.pop("key")
    refused(busy, InvalidRequest, lambda: busy.comptroller.estimate(**call))


def test_the_same_key_with_other_arguments_is_a_conflict(busy):
    refused(busy, IdempotencyConflict, lambda: busy.admit(4, key="known"))


def test_a_deadline_that_is_past_is_a_deadline_that_is_past(busy):
    past = busy.clock() - timedelta(microseconds=1)
    refused(busy, DeadlinePassed, lambda: busy.admit(1, not_after=past))
    busy.grant(1, not_after=busy.clock())


def test_a_deadline_that_passes_while_waiting_for_the_lock_is_kept(busy, monkeypatch):
    """The lock came after the client had given up."""
    deadline = busy.clock() + timedelta(seconds=5)
    reads = iter([busy.clock()])
    monkeypatch.setattr(
        busy.comptroller, "_clock", lambda: next(reads, deadline + timedelta(seconds=1))
    )
    refused(busy, DeadlinePassed, lambda: busy.admit(1, not_after=deadline))


GRANTS = ["", "gr_1_2", "gr_2_1", "gr_0_1", "gr_1_0", "gr_1_٢", "gr_1_1 ", "lot_1_1", "gr_1",
          "gr_9999999999999999999_1", "gr_1_9999999999999999999", "gr_" + "9" * 400 + "_1", None, 7,
          b"gr_1_1", "gr_1_1\n"]  # fmt: skip


@pytest.mark.parametrize("grant", GRANTS, ids=repr)
def test_a_grant_that_never_was_is_unknown(busy, grant):
    for call in (
        lambda: busy.comptroller.settle(grant),
        lambda: busy.comptroller.release(grant, reason="failed"),
        lambda: busy.comptroller.start(grant),
        lambda: busy.comptroller.extend(grant, HOUR),
        lambda: busy.comptroller.add_gpu_cost(grant, gpu_seconds=1, attempt="1"),
        lambda: busy.comptroller.get(grant),
    ):
        refused(busy, UnknownGrant, call)


@pytest.mark.parametrize(
    "lot", ["", "lot_1_2", "lot_9_1", "gr_1_1", "lot_" + "9" * 19 + "_1", None]
)
def test_a_lot_that_never_was_is_unknown(busy, lot):
    refused(busy, UnknownLot, lambda: busy.comptroller.refund_lot(lot, reference="r"))


SECONDS = [-1, 1.5e300, float("nan"), float("inf"), Decimal("-0.1"), Decimal("NaN"), "7", True,
           10**10, Decimal("1e-1000000"), Fraction(1, 3)]  # fmt: skip


@pytest.mark.parametrize("seconds", SECONDS, ids=repr)
def test_a_gpu_time_that_is_none_is_refused(busy, seconds):
    for call in (
        lambda: busy.comptroller.settle("gr_1_1", gpu_seconds=seconds),
        lambda: busy.comptroller.release("gr_1_1", reason="failed", gpu_seconds=seconds),
        lambda: busy.comptroller.add_gpu_cost("gr_1_1", gpu_seconds=seconds, attempt="1"),
    ):
        refused(busy, InvalidRequest, call)


class Float64(float):
    """A float that does not print as Python's do: numpy's are such."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)!r})"

    def __str__(self) -> str:
        return repr(float(self))


def test_a_float_means_the_decimal_that_it_prints_as(busy):
    assert busy.comptroller.settle("gr_1_1", gpu_seconds=Float64(41.2)).gpu_cost_micro_usd == 41200


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.settle("gr_1_1", gpu_seconds=1, gpu="h200"),
        lambda c: c.settle("gr_1_1", gpu="h100"),
        lambda c: c.settle("gr_1_1", delivered={"n": 0}),
        lambda c: c.settle("gr_1_1", delivered={"m": 1}),
        lambda c: c.settle("gr_1_1", delivered={"n": float("nan")}),
        lambda c: c.settle("gr_1_1", delivered=7),
        lambda c: c.release("gr_1_1", reason=""),
        lambda c: c.release("gr_1_1", reason=None),
        lambda c: c.add_gpu_cost("gr_1_1", gpu_seconds=None, attempt="1"),
        lambda c: c.add_gpu_cost("gr_1_1", gpu_seconds=1, attempt=""),
        lambda c: c.extend("gr_1_1", timedelta(0)),
        lambda c: c.extend("gr_1_1", timedelta(days=-1)),
        lambda c: c.extend("gr_1_1", timedelta(days=367)),
        lambda c: c.extend("gr_1_1", 60),
        lambda c: c.set_plan("u", "premium"),
        lambda c: c.set_plan("", "pro"),
        lambda c: c.set_account("u", timezone="Mars/One"),
        lambda c: c.set_account("u", timezone="../../etc/passwd"),
        lambda c: c.set_account("u", timezone=7),
        lambda c: c.set_account("u", tags={"a": 1}),
        lambda c: c.set_account("u", tags=["a"]),
        lambda c: c.set_paid_use("u", "always"),
        lambda c: c.set_paid_use("u", "auto", spend_cap_minor=-1),
        lambda c: c.set_paid_use("u", "auto", spend_cap_minor=1.5),
        lambda c: c.set_paid_use("u", "auto", spend_cap_minor=10**17),
        lambda c: c.set_paid_use("u", "auto", spend_cap_minor=100, spend_cap_per="hour"),
        lambda c: c.freeze("u", reason=""),
        lambda c: c.add_credits("u", units=0, reference="r"),
        lambda c: c.add_credits("u", units=-5, reference="r"),
        lambda c: c.add_credits("u", units=True, reference="r"),
        lambda c: c.add_credits("u", units=10**13, reference="r"),
        lambda c: c.add_credits("u", units=1, reference=""),
        lambda c: c.add_credits("u", units=1, reference="r", origin="purchase"),
        lambda c: c.add_credits("u", units=1, reference="r", expires_at=NAIVE),
        lambda c: c.add_credits("u", units=1, reference="r", expires_at=START),
        lambda c: c.add_credits("u", units=1, reference="r", priority=10**6),
        lambda c: c.record_purchase("u", pack="twenty", reference="r"),
        lambda c: c.record_purchase("u", pack=None, reference="r"),
        lambda c: c.record_purchase("u", pack="ten", reference=LONG),
        lambda c: c.record_purchase("u", pack="ten", reference="r", currency="eur"),
        lambda c: c.record_purchase("u", pack="ten", reference="r", currency=7),
        lambda c: c.record_purchase("u", pack="ten", reference="r", at=NAIVE),
        lambda c: c.record_purchase("u", pack="ten", reference="r", at=START + DAY),
        lambda c: c.find("u", key=""),
        lambda c: c.balance(""),
        lambda c: c.balance("u", member=""),
        lambda c: c.denials("u", since=NAIVE),
        lambda c: c.forget(""),
    ],
)
def test_bad_arguments_of_every_other_call_are_refused(busy, call):
    refused(busy, InvalidRequest, lambda: call(busy.comptroller))


def test_a_reference_of_another_purchase_is_a_conflict(busy):
    for call in (
        lambda: busy.comptroller.record_purchase("u", pack="three", reference="order"),
        lambda: busy.comptroller.record_purchase("new", pack="ten", reference="order"),
    ):
        refused(busy, IdempotencyConflict, call)


def test_work_on_an_ended_grant_does_not_start(busy):
    busy.comptroller.settle("gr_1_1")
    refused(busy, GrantEnded, lambda: busy.comptroller.start("gr_1_1"))


def test_a_clock_without_a_zone_is_refused(busy):
    with pytest.raises(InvalidRequest):
        busy.clock.set(NAIVE)


def errors(tree: type[ComptrollerError]) -> list[type[ComptrollerError]]:
    return [tree, *(below for each in tree.__subclasses__() for below in errors(each))]


@pytest.mark.parametrize("error", errors(ComptrollerError), ids=lambda error: error.__name__)
def test_every_error_says_whether_a_retry_can_help(error):
    retryable = {"AccountBusy", "StaleTransaction", "StoreUnavailable", "PaymentUnavailable"}
    kinds = {kind.__name__ for kind in error.__mro__}
    assert error.retryable is bool(kinds & retryable)


def test_an_instant_in_another_zone_is_the_same_instant(busy):
    from zoneinfo import ZoneInfo

    later = (START + HOUR).astimezone(ZoneInfo("Asia/Tokyo"))
    lot = busy.comptroller.add_credits("u", units=1, reference="r", expires_at=later)
    assert lot.expires_at == START + HOUR
    assert lot.expires_at.tzinfo is UTC


SELLING: list[Callable[[World], Any]] = [
    lambda busy: busy.comptroller.checkout("u", pack="ten", success_url="x", cancel_url="x"),
    lambda busy: busy.comptroller.handle_stripe_event(b"{}", "t=1,v1=x"),
    lambda busy: busy.comptroller.refund("pu_1"),
    lambda busy: busy.comptroller.customer_portal("u", return_url="x"),
]


@pytest.mark.parametrize("call", SELLING, ids=["checkout", "event", "refund", "portal"])
def test_selling_without_a_stripe_key_says_what_to_set_and_changes_nothing(busy, call, monkeypatch):
    monkeypatch.setattr(busy.comptroller, "_stripe", None)
    refused(busy, PaymentNotConfigured, lambda: call(busy))
    with pytest.raises(PaymentNotConfigured, match="set STRIPE_API_KEY and STRIPE_WEBHOOK_SECRETS"):
        call(busy)
