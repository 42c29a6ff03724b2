"""What `verify` finds where somebody has changed what Stripe has said of payments, or whose payments they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.stripe.plans import POLICIES, Subscribers
from tests.stripe.shop import Shop, opened

BEGIN = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def shop() -> Iterator[Shop]:
    """Ann has a plan, and so has Bob; Cy has a pack of which a part was refunded, Dora one that she disputes."""
    with opened(policies=POLICIES) as shop:
        shop.clock.set(BEGIN)
        people = Subscribers(shop)
        people.subscribed("pro", "ann")
        shop.stripe.refund(shop.stripe.every("payment_intent")[-1]["id"], 700)
        people.subscribed("studio", "bob")
        shop.stripe.refund(shop.bought("ten", "cy").payment, 100)
        shop.bought("ten", "dora")
        shop.stripe.dispute(shop.stripe.every("charge")[-1]["id"])
        shop.hear()
        yield shop


def tampered(shop: Shop, *statements: str) -> list[str]:
    """Change rows, have the books verified, and put the rows back."""
    driver = shop.comptroller._db.engine.raw_connection().driver_connection
    assert driver is not None
    copy = driver.serialize()
    driver.execute("PRAGMA foreign_keys=OFF")
    for statement in statements:
        assert driver.execute(statement).rowcount, f"nothing was changed by {statement}"
    driver.commit()
    found = [str(each) for each in shop.comptroller.verify()]
    driver.deserialize(copy)
    return found


OF = "(SELECT session_id FROM comptroller_purchase JOIN comptroller_account_name USING (book_id) WHERE name = '{}')"
PAID = "(SELECT payment FROM comptroller_purchase JOIN comptroller_account_name USING (book_id) WHERE name = '{}')"
FACT = "UPDATE comptroller_stripe_fact SET facts = "
CHANGES = {
    "what a session paid": (
        f"{FACT}replace(facts, '\"total\":400', '\"total\":40') WHERE payment = {OF.format('cy')}",
        "of purchase pu_",
    ),
    "a refund": (
        f"{FACT}replace(facts, '\"amount\":100', '\"amount\":1') WHERE payment = {PAID.format('cy')}",
        "'refunded_minor': 100",
    ),
    "all of a payment": (f"{FACT}'{{}}' WHERE payment = {PAID.format('cy')}", "refunded_minor"),
    "a dispute": (
        f"{FACT}replace(facts, 'needs_response', 'won') WHERE payment = {PAID.format('dora')}",
        "'disputed': 1",
    ),
    "facts that cannot be read": (
        f"{FACT}'[1' WHERE payment = {PAID.format('dora')}",
        "what can be read",
    ),
    "what an invoice bills": (
        f"{FACT}replace(facts, '\"net\":3000', '\"net\":2999')",
        "invoice in_",
    ),
    "what an invoice has paid": (
        f"{FACT}replace(facts, '\"total\":9000', '\"total\":8000')",
        "invoice in_",
    ),
    "the facts of a subscription": (
        f"DELETE FROM comptroller_stripe_fact WHERE payment = {PAID.format('ann')}",
        "of sub_",
    ),
    "a session that is lost": (
        f"DELETE FROM comptroller_stripe_fact WHERE payment = {OF.format('cy')}",
        "of purchase pu_",
    ),
    "whose payment it is": (
        "UPDATE comptroller_purchase SET payment = payment || 'x' WHERE kind = 'pack'",
        "of pi_",
    ),
    "that there is a payment": (
        "UPDATE comptroller_purchase SET payment = NULL WHERE kind = 'pack'",
        ", payment",
    ),
    "whose session it is": (
        "UPDATE comptroller_purchase SET session_id = NULL WHERE kind = 'pack'",
        "of purchase pu_",
    ),
    "what paid an invoice": (
        "UPDATE comptroller_plan_invoice SET payment = payment || 'x'",
        "payment of invoice in_",
    ),
    "that an invoice has a payment": (
        "UPDATE comptroller_plan_invoice SET payment = NULL",
        "payment of invoice in_",
    ),
    "that it is quarantined": (
        "UPDATE comptroller_purchase SET problem = 'none' WHERE kind = 'pack'",
        "problem",
    ),
    "that a plan is quarantined": (
        "UPDATE comptroller_purchase SET problem = 'none' WHERE kind = 'plan'",
        "problem",
    ),
    "a customer of no book": (
        "INSERT INTO comptroller_stripe_customer (book_id, customer_id) VALUES (99, 'cus_x')",
        "rows of comptroller_stripe_customer",
    ),
    "a top-up of no book": (
        "INSERT INTO comptroller_top_up SELECT 99, 'ten', 1, 1, 'usd', NULL",
        "rows of comptroller_top_up",
    ),
    "an invoice of no book": (
        "INSERT INTO comptroller_plan_invoice (id, book_id, purchase, currency) VALUES ('x', 99, 'y', 'usd')",
        "rows of comptroller_plan_invoice",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_stripe_has_said_is_found(shop, change):
    statement, said = CHANGES[change]
    assert shop.comptroller.verify() == []
    found = tampered(shop, statement)
    assert any(said in each for each in found), found


def test_payments_that_changed_places_are_found(shop):
    """Cy's refund is not Dora's, and her dispute is not Cy's."""
    cy, dora = (shop.comptroller.purchases(name)[0] for name in ("cy", "dora"))
    swap = "UPDATE comptroller_purchase SET payment = '{}' WHERE id = '{}'"
    found = tampered(
        shop,
        swap.format("pi_between", cy.id),
        swap.format(cy.payment, dora.id),
        swap.format(dora.payment, cy.id),
    )
    assert any(cy.id in each for each in found), found
    assert any(dora.id in each for each in found), found
