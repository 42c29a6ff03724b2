"""The table of Stripe's events names all that is handled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from billing.stripe import events, plan_events
from billing.stripe.facts import _ORDER, BILL, DISPUTE, INTENT, REFUND, SESSION
from tests.stripe.scenario import Course
from tests.stripe.shop import opened

_READERS = {**events._READERS, **plan_events.READERS}
PAGE = (Path(__file__).parents[2] / "docs/reference/stripe-events.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `([\w.]+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
COURSES = [
    "offer ten\n pay later\n clear\n refund 1.00 pending\n unrefund",
    "offer ten\n decline\n pay\n inquire\n escalate\n win",
    "offer ten\n pay\n dispute\n lose\n offer ten\n abandon\n offer ten\n pay later\n bounce",
]


@pytest.mark.parametrize("kind", _READERS)
def test_each_kind_of_object_that_is_read_has_its_rows(kind):
    assert re.search(r"^\| `[\w.]+`.* \| .+ \|$", SECTIONS.get(kind, ""), re.MULTILINE)


@pytest.mark.parametrize("kind", [SESSION, INTENT, REFUND, DISPUTE, BILL])
def test_the_order_of_each_kinds_states_is_said(kind):
    order = ", ".join(f"`{status}`" for status in _ORDER[kind])
    assert f"Later is: {order}" in PAGE


def sent(course: str) -> list[dict[str, Any]]:
    """All events of a course."""
    with opened() as shop:
        happening = Course(shop)
        for line in course.splitlines():
            happening.happens(line)
        return shop.stripe.events


def test_each_event_that_stripe_sends_of_these_objects_is_named():
    happened = {
        (event["type"], event["data"]["object"]["object"])
        for course in COURSES
        for event in sent(course)
    }
    assert len(happened) > 10
    for name, kind in happened:
        assert kind not in _READERS or f"`{name}`" in SECTIONS[kind], name
