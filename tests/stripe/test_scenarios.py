"""Selling, scenario by scenario: events on the left, books on the right. How to read them: tests/stripe/scenario.py."""

from __future__ import annotations

import pytest

from tests.stripe.scenario import play

PAYING = {
    "paid": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        use 3               | units 7, deferred 2.80, revenue 1.20
    """,
    "a card that declines costs nothing, and another one pays": """
        offer ten           | status pending
        decline             |
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
    """,
    "paid later: units come when the money does": """
        offer ten           | status pending
        pay later           |
        wait 3 days         |
        clear               | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
    """,
    "paid later, and the money never comes": """
        offer ten           | status pending
        pay later           |
        bounce              | status failed
    """,
    "never paid": """
        offer ten           | status pending
        abandon             | status failed
    """,
    "taxes are not ours: the lot's price is without them, and a refund returns their part": """
        offer ten taxed     | status pending
        pay tax 0.33        | status paid, units 10, generates yes, clearing 4.33, deferred 4.00, tax 0.33
        use 1               | units 9, deferred 3.60, revenue 0.40
        refund 1.00         | units 7, clearing 3.33, tax 0.26, returned 0.93, deferred 2.80, refunded 0.80
        refund all          | units 0, generates no, clearing 0, tax 0, returned 4.00, deferred 0, refunded 3.60
    """,
    "a promotion code: the lot costs what was paid": """
        code QUARTER 25%    |
        offer ten codes     | status pending
        pay code QUARTER    | status paid, units 10, generates yes, clearing 3.00, deferred 3.00
        use 1               | units 9, deferred 2.70, revenue 0.30
        refund 1.50         | units 4, clearing 1.50, returned 1.50, deferred 1.20, refunded 1.50
    """,
    "a promotion code for the whole: no payment is required, and the units are a gift": """
        code FREE 100%      |
        offer ten codes     | status pending
        pay code FREE       | status paid, units 10, generates yes
        use 4               | units 6
        wait 366 days       | units 0, generates no
    """,
    "yen have no cents": """
        offer ten in jpy    | status pending
        pay                 | status paid, units 10, generates yes, clearing 600, deferred 600
        use 1               | units 9, deferred 540, revenue 60
        refund 119          | units 8, clearing 481, deferred 480, returned 119, refunded 60
    """,
    "dinars have a thousand fils": """
        offer ten in kwd    | status pending
        pay                 | status paid, units 10, generates yes, clearing 1.250, deferred 1.250
        use 1               | units 9, deferred 1.125, revenue 0.125
        refund 0.250        | units 7, clearing 1.000, deferred 0.875, returned 0.250, refunded 0.250
    """,
    "a price that does not divide: every cent ends somewhere": """
        offer seven         | status pending
        pay                 | status paid, units 7, generates yes, clearing 9.99, deferred 9.99
        use 2               | units 5, deferred 7.14, revenue 2.85
        refund 5.00         | units 2, clearing 4.99, deferred 2.85, returned 5.00, refunded 4.29
        wait 400 days       |
        use 2               | units 0, generates no, deferred 0, revenue 5.70
    """,
    "a price edited in the dashboard changes nothing: prices come from the policy file": """
        offer ten           | status pending
        reprice 5.00        |
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        offer ten           | status pending
        pay                 | status paid, units 20, clearing 8.00, deferred 8.00
    """,
}

REFUNDS = {
    "refunded in parts": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        refund 1.00         | units 8, clearing 3.00, returned 1.00, deferred 3.20, refunded 0.80
        refund 1.00         | units 5, clearing 2.00, returned 2.00, deferred 2.00, refunded 2.00
        use 1               | units 4, deferred 1.60, revenue 0.40
        refund all          | units 0, generates no, clearing 0, returned 4.00, deferred 0, refunded 3.60
    """,
    "refunded more than is unused: what was used stays earned, and the rest is our loss": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        use 8               | units 2, deferred 0.80, revenue 3.20
        refund 3.00         | units 0, generates no, clearing 1.00, returned 3.00, deferred 0, refunded 0.80
        unrefund            | units 2, generates yes, clearing 4.00, returned 0, deferred 0.80, refunded 0
    """,
    "a refund that fails gives the units back": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        use 1               | units 9, deferred 3.60, revenue 0.40
        refund 2.00 pending | units 4, clearing 2.00, returned 2.00, deferred 1.60, refunded 2.00
        unrefund            | units 9, clearing 4.00, returned 0, deferred 3.60, refunded 0
        use 9               | units 0, generates no, deferred 0, revenue 4.00
    """,
    "after a refund that failed another one for the same amount is another one": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        refund 2.00         | units 5, clearing 2.00, returned 2.00, deferred 2.00, refunded 2.00
        unrefund            | units 10, clearing 4.00, returned 0, deferred 4.00, refunded 0
        refund 2.00         | units 5, clearing 2.00, returned 2.00, deferred 2.00, refunded 2.00
    """,
    "units that a job holds when the refund comes are revoked when they return": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        start 3             | units 7, held 3
        refund all          | units 0, generates no, clearing 0, returned 4.00, deferred 1.20, refunded 2.80
        fail                | held 0, deferred 0, refunded 4.00
    """,
    "units that a job holds when the refund comes are earned when it delivers": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        start 3             | units 7, held 3
        refund all          | units 0, generates no, clearing 0, returned 4.00, deferred 1.20, refunded 2.80
        deliver             | held 0, deferred 0, revenue 1.20
    """,
    "a refund that fails while a job holds units": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        start 3             | units 7, held 3
        refund all          | units 0, generates no, clearing 0, returned 4.00, deferred 1.20, refunded 2.80
        unrefund            | units 7, generates yes, clearing 4.00, returned 0, deferred 4.00, refunded 0
        fail                | units 10, held 0
    """,
    "expired units are not refunded once more: their money was breakage": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        wait 366 days       | units 0, generates no, deferred 0, breakage 4.00
        refund all          | clearing 0, returned 4.00
    """,
    "a refund that fails after the lot's expiry: its units expire at once": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        refund all          | units 0, generates no, clearing 0, returned 4.00, deferred 0, refunded 4.00
        wait 366 days       |
        unrefund            | clearing 4.00, returned 0, refunded 0, breakage 4.00
    """,
}

DISPUTES = {
    "won: what was left is suspended meanwhile, and comes back": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        use 2               | units 8, deferred 3.20, revenue 0.80
        dispute             | units 0, held 8, generates no, clearing -15.00, receivable 4.00, fees 15.00
        win                 | units 8, held 0, generates yes, clearing -11.00, receivable 0
        use 8               | units 0, generates no, deferred 0, revenue 4.00
    """,
    "won, and Stripe gives its fee back": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        dispute             | units 0, held 10, generates no, clearing -15.00, receivable 4.00, fees 15.00
        win fee             | units 10, held 0, generates yes, clearing 4.00, receivable 0, fees 0
    """,
    "lost before anything was used": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        dispute             | units 0, held 10, generates no, clearing -15.00, receivable 4.00, fees 15.00
        lose                | held 0, receivable 0, returned 4.00, deferred 0, refunded 4.00
    """,
    "lost after use: what was used is our loss, never a negative balance": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        use 7               | units 3, deferred 1.20, revenue 2.80
        dispute             | units 0, held 3, generates no, clearing -15.00, receivable 4.00, fees 15.00
        lose                | held 0, receivable 0, returned 1.20, deferred 0, refunded 1.20, loss 2.80
    """,
    "lost in part": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        dispute 1.50        | units 0, held 10, generates no, clearing -12.50, receivable 1.50, fees 15.00
        lose                | units 7, held 0, generates yes, receivable 0, deferred 2.80
                            | returned 1.20, refunded 1.20, loss 0.30
    """,
    "an inquiry takes nothing until it becomes a dispute": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        inquire             |
        escalate            | units 0, held 10, generates no, clearing -15.00, receivable 4.00, fees 15.00
        win                 | units 10, held 0, generates yes, clearing -11.00, receivable 0
    """,
    "an inquiry that is closed has taken nothing": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        inquire             |
        win                 |
    """,
    "units that a job holds when the dispute comes are suspended when they return": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        start 3             | units 7, held 3
        dispute             | units 0, held 10, generates no, clearing -15.00, receivable 4.00, fees 15.00
        fail                |
        win                 | units 10, held 0, generates yes, clearing -11.00, receivable 0
    """,
    "units that a job holds are earned when it delivers during the dispute, and lost with it": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        start 3             | units 7, held 3
        dispute             | units 0, held 10, generates no, clearing -15.00, receivable 4.00, fees 15.00
        deliver             | held 7, deferred 2.80, revenue 1.20
        lose                | held 0, receivable 0, returned 2.80, deferred 0, refunded 2.80, loss 1.20
    """,
    "units that a job holds when the dispute is lost: their return makes the loss smaller": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        start 3             | units 7, held 3
        dispute             | units 0, held 10, generates no, clearing -15.00, receivable 4.00, fees 15.00
        lose                | held 3, receivable 0, returned 2.80, deferred 1.20, refunded 2.80, loss 1.20
        fail                | held 0, deferred 0, returned 4.00, refunded 4.00, loss 0
    """,
    "other credits may be used meanwhile, where the policy file says so": """
        policy on_dispute: continue
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        offer ten           | status pending
        pay                 | status paid, units 20, clearing 8.00, deferred 8.00
        dispute             | units 10, held 10, clearing -11.00, receivable 4.00, fees 15.00
        use 10              | units 0, generates no, deferred 4.00, revenue 4.00
        lose                | held 0, receivable 0, returned 4.00, deferred 0, refunded 4.00
    """,
    "other credits are not used meanwhile, by default": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        offer ten           | status pending
        pay                 | status paid, units 20, clearing 8.00, deferred 8.00
        dispute             | units 10, held 10, generates no, clearing -11.00, receivable 4.00, fees 15.00
        win                 | units 20, held 0, generates yes, clearing -7.00, receivable 0
    """,
    "a lot does not expire while it is disputed: won, it expires then": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        wait 360 days       |
        dispute             | units 0, held 10, generates no, clearing -15.00, receivable 4.00, fees 15.00
        wait 30 days        |
        win                 | held 0, clearing -11.00, receivable 0, deferred 0, breakage 4.00
    """,
    "a lot does not expire while it is disputed: lost, its units are revoked": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        use 4               | units 6, deferred 2.40, revenue 1.60
        wait 360 days       |
        dispute             | units 0, held 6, generates no, clearing -15.00, receivable 4.00, fees 15.00
        wait 30 days        |
        lose                | held 0, receivable 0, returned 2.40, deferred 0, refunded 2.40, loss 1.60
    """,
    "refunded in part, the rest disputed and lost": """
        offer ten           | status pending
        pay                 | status paid, units 10, generates yes, clearing 4.00, deferred 4.00
        use 5               | units 5, deferred 2.00, revenue 2.00
        refund 1.00         | units 3, clearing 3.00, returned 1.00, deferred 1.20, refunded 0.80
        dispute             | units 0, held 3, generates no, clearing -15.00, receivable 3.00, fees 15.00
        lose                | held 0, receivable 0, returned 2.00, deferred 0, refunded 2.00, loss 2.00
    """,
    "refunded and lost with taxes in it: of both together all tax goes back, to the cent": """
        offer ten taxed     | status pending
        pay tax 0.33        | status paid, units 10, generates yes, clearing 4.33, deferred 4.00, tax 0.33
        refund 1.02         | units 8, clearing 3.31, tax 0.26, returned 0.95, deferred 3.20, refunded 0.80
        dispute             | units 0, held 8, generates no, clearing -15.00, receivable 3.31, fees 15.00
        lose                | held 0, receivable 0, tax 0, returned 4.00, deferred 0, refunded 4.00
    """,
}


@pytest.mark.parametrize("table", PAYING.values(), ids=PAYING)
def test_paying(table):
    play(table)


@pytest.mark.parametrize("table", REFUNDS.values(), ids=REFUNDS)
def test_refunds(table):
    play(table)


@pytest.mark.parametrize("table", REFUNDS.values(), ids=REFUNDS)
def test_a_refund_of_ours_ends_as_one_made_in_the_dashboard(table):
    play(table.replace(" refund ", " return ").replace(" pending ", " "))


@pytest.mark.parametrize("table", DISPUTES.values(), ids=DISPUTES)
def test_disputes(table):
    play(table)


@pytest.mark.parametrize(
    "name",
    [
        "refunded in parts",
        "units that a job holds when the refund comes are revoked when they return",
        "lost after use: what was used is our loss, never a negative balance",
        "units that a job holds when the dispute is lost: their return makes the loss smaller",
        "other credits are not used meanwhile, by default",
        "a lot does not expire while it is disputed: won, it expires then",
    ],
)
def test_postgresql_keeps_the_same_books(name, database_url):
    play({**REFUNDS, **DISPUTES}[name], database_url)
