"""What `verify` finds where somebody has changed what plans are paid and have earned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from tests.stripe.plans import POLICIES, Subscribers
from tests.stripe.shop import Shop, opened

BEGIN = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened(policies=POLICIES) as shop:
        shop.clock.set(BEGIN)
        Subscribers(shop).subscribed("pro")
        shop.clock.advance(days=5)
        shop.comptroller.sweep()
        yield shop


@contextmanager
def tampered(shop: Shop, table: str, column: str, value: str) -> Iterator[list[str]]:
    """Change a column of all rows of a table, have the books verified, and put it back."""
    with shop.comptroller._db.engine.begin() as db:
        (before,) = db.exec_driver_sql(f"SELECT {column} FROM comptroller_{table}").one()
        db.exec_driver_sql(f"UPDATE comptroller_{table} SET {column} = {value}")
    yield [str(each) for each in shop.comptroller.verify()]
    with shop.comptroller._db.engine.begin() as db:
        db.exec_driver_sql(f"UPDATE comptroller_{table} SET {column} = ?", (before,))


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("plan_invoice", "recognised", "'{\"pro\":1}'"),
        ("plan_invoice", "deferred_minor", "deferred_minor - 1"),
        ("plan_invoice", "revoked_minor", "7"),
        ("plan_invoice", "spans", "'[]'"),
        ("plan_invoice", "purchase", "'pu_other'"),
        ("purchase", "state", "'{}'"),
        ("purchase", "kind", "'pack'"),
        ("purchase", "price_minor", "1"),
        ("book", "plan", "'studio'"),
        ("book", "plan_due", "NULL"),
    ],
)
def test_a_row_of_a_plan_that_was_edited_is_found(shop, table, column, value):
    assert shop.comptroller.verify() == []
    with tampered(shop, table, column, value) as found:
        assert any(column in each for each in found), found


def test_a_report_says_that_what_is_unearned_does_not_agree(shop):
    now = shop.clock()
    with tampered(shop, "plan_invoice", "deferred_minor", "deferred_minor - 1"):
        check = shop.comptroller.report(BEGIN, now).check
        assert any("lots and plans have" in problem for problem in check.problems)
    assert shop.comptroller.report(BEGIN, now).check.ok
