"""What plans earn, as pure arithmetic: by day, to the cent, whatever is refunded, credited or disputed meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.payments import Payment
from billing.plans import (
    Invoice,
    Span,
    Standing,
    changed_plan,
    groups_due,
    next_day_end,
    next_due,
    next_recognition,
    recognised,
)

BEGIN = datetime(2026, 3, 10, 7, 30, tzinfo=UTC)
DAY = 86_400
START = int(BEGIN.timestamp())


def invoice(*spans: Span, paid: int) -> Invoice:
    return Invoice("in_1", "pu_1", "usd", Payment(paid=True, total_minor=paid), spans)


def one_day(subject: Invoice, day_end: datetime) -> Invoice:
    """Recognise what the end of a day has earned."""
    for (plan, _), amounts in groups_due([subject], day_end).items():
        earned = recognised(subject, plan, amounts[subject.id])
        subject = replace(subject, recognised=earned)
    return subject


def test_a_day_ends_with_its_last_microsecond_so_that_it_counts_in_its_own_month():
    moment = timedelta(microseconds=1)
    midnight = datetime(2026, 3, 11, tzinfo=UTC)
    assert next_day_end(BEGIN) == midnight - moment
    assert next_day_end(midnight - moment) == midnight + timedelta(days=1) - moment
    assert next_day_end(midnight) == midnight + timedelta(days=1) - moment


def test_what_is_earned_closes_to_the_cent_over_the_whole_period():
    subject = invoice(Span(2999, START, START + 30 * DAY, "pro"), paid=2999)
    parts, due = [], next_recognition([subject], BEGIN)
    while due is not None:
        before, subject = subject.recognised_minor, one_day(subject, due)
        parts.append(subject.recognised_minor - before)
        due = next_recognition([subject], due)
    assert (sum(parts), len(parts), subject.deferred_minor) == (2999, 31, 0)
    # The first day has 16.5 of its 24 hours, and all the others what a day is worth, rounded.
    assert parts[0] == 2999 * 33 // (30 * 48)
    assert all(part in (99, 100) for part in parts[1:-1])


def test_a_day_that_earns_less_than_a_cent_is_passed_over():
    subject = invoice(Span(5, START, START + 365 * DAY, "pro"), paid=5)
    due, days = next_recognition([subject], BEGIN), 0
    while due is not None:
        assert groups_due([subject], due)
        subject, days = one_day(subject, due), days + 1
        due = next_recognition([subject], due)
    assert (subject.recognised_minor, days) == (5, 5)


def test_time_that_is_credited_after_it_was_earned_is_taken_back():
    former = Span(3000, START, START + 30 * DAY, "pro")
    subject = invoice(former, paid=3000)
    end = next_day_end(BEGIN + timedelta(days=40))
    assert one_day(subject, end).recognised_minor == 3000
    credit = Invoice(
        "in_2", "pu_1", "usd", Payment(paid=True), (former._replace(amount_minor=-3000),)
    )
    assert groups_due([credit], end) == {("pro", "usd"): {"in_2": -3000}}


spans = st.builds(
    lambda amount, start, length, plan: Span(amount, START + start, START + start + length, plan),
    st.integers(-3000, 9000),
    st.integers(0, 20 * DAY),
    st.integers(0, 40 * DAY),
    st.sampled_from(("pro", "studio")),
)


@given(
    st.lists(spans, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 9000)), max_size=4),
)
@settings(max_examples=300)
def test_whatever_is_refunded_whenever_the_rest_is_earned_and_nothing_is_left(parts, refunds):
    paid = sum(span.amount_minor for span in parts)
    if paid < 0:
        paid, parts = -paid, [span._replace(amount_minor=-span.amount_minor) for span in parts]
    subject, refunded = invoice(*parts, paid=paid), dict(refunds)
    day_end = next_day_end(BEGIN)
    for day in range(72):
        if day in refunded:
            returned = min(refunded[day], paid)
            payment = replace(subject.payment, refunded_minor=returned)
            subject = replace(subject, payment=payment)
            revoked = subject.to_revoke_minor()
            assert 0 <= revoked <= returned
            subject = replace(subject, revoked_minor=revoked)
        subject = one_day(subject, day_end)
        assert not groups_due([subject], day_end)
        day_end += timedelta(days=1)
    assert subject.deferred_minor == 0
    assert next_recognition([subject], day_end) is None
    assert subject.recognised_minor + subject.revoked_minor == paid


def test_the_next_due_is_the_end_of_a_day_or_of_a_plan_whichever_comes_first():
    subject = invoice(Span(3000, START, START + 30 * DAY, "pro"), paid=3000)
    soon = BEGIN + timedelta(hours=1)
    assert next_due([subject], [Standing("pro", soon)], BEGIN) == soon
    assert next_due([subject], [Standing("pro")], BEGIN) == next_day_end(BEGIN)
    assert next_due([], [Standing("pro")], BEGIN) is None


@pytest.mark.parametrize(
    ("plan", "before", "now", "then"),
    [
        (None, Standing(), Standing("pro"), "pro"),
        ("team", Standing(before="team"), Standing("pro", before="team"), "pro"),
        ("pro", Standing("pro", before="team"), Standing(before="team"), "team"),
        ("pro", Standing("pro"), Standing(), None),
        ("gift", Standing("pro"), Standing(), "gift"),
        ("gift", Standing("pro"), Standing("studio"), "studio"),
        ("gift", Standing("pro"), Standing("pro", BEGIN), "gift"),
    ],
)
def test_a_subscription_changes_the_plan_that_it_gave_and_no_other(plan, before, now, then):
    assert changed_plan(plan, before, now) == then


def test_what_a_record_says_of_a_standing_is_that_standing():
    for standing in (Standing(), Standing("pro", BEGIN, "basic", "team")):
        assert Standing.of(standing.facts()) == standing
