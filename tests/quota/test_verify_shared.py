"""What all books share has no foreign keys, so that it may be elsewhere: verification finds what leads nowhere."""

from __future__ import annotations

import pytest

from tests.quota.tampering import tamper

LEADS_NOWHERE = {
    "a name of no book": (
        "INSERT INTO comptroller_account_name VALUES ('ghost', 99, zeroblob(16), '{}')",
        (99, "rows of comptroller_account_name"),
    ),
    "a payment of no book": (
        "INSERT INTO comptroller_payment_reference VALUES ('purchase', 'ghost', 99, 1, 1, '')",
        (99, "rows of comptroller_payment_reference"),
    ),
    "a payment of no lot": (
        "INSERT INTO comptroller_payment_reference VALUES ('purchase', 'ghost', 1, 99, 1, '')",
        (1, "payment reference purchase ghost"),
    ),
    "a grant under a policy version that was never used": (
        "UPDATE comptroller_grant SET policy_version = 'x' WHERE book_id = 1 AND number = 2",
        (1, "grant 2, policy_version"),
    ),
    "policy versions that were used and are not kept": (
        "DELETE FROM comptroller_policy_version",
        (1, "decision"),
    ),
    "a ledger account in an asset that there is not": (
        "INSERT INTO comptroller_ledger_account VALUES (1, 'cash:xxx', 'xxx')",
        (1, "ledger account cash:xxx"),
    ),
    "an asset that is used and is not kept": (
        "DELETE FROM comptroller_asset WHERE code = 'usd'",
        (1, "asset usd"),
    ),
}


@pytest.mark.parametrize("what", LEADS_NOWHERE)
def test_what_leads_nowhere_is_found(books, what):
    statement, (book, said) = LEADS_NOWHERE[what]
    found = tamper(books, statement)
    assert any(each.book == book and said in each.what for each in found), [*map(str, found)]
