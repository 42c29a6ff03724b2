"""Tampering with rows: `verify` names the book and the record of each, and what is wrong."""

from __future__ import annotations

import pytest

from policies.instants import micros
from tests.quota.tampering import MORE, RULES, driver_of, lived_in, places, restore, tamper
from tests.world import DAY, a_world, plan

U = "book_id = 1"
BYTES_CHANGED = (
    "UPDATE comptroller_record SET body = CAST(replace(CAST(body AS TEXT), '\"units\":8',"
    " '\"units\":7') AS BLOB) WHERE book_id = 1 AND seq = 2"
)
INSERTED_TRANSFER = (
    "INSERT INTO comptroller_transfer (book_id, seq, idx, debit, credit, asset, amount, phase)"
    " VALUES (1, 1, 9, 'issued', 'lot:1', 'CREDIT', 5, 0)"
)
COPIED_LINE = (
    "INSERT INTO comptroller_line SELECT book_id, seq, 7, kind, at, grant_no, plan, operation,"
    " member, source, lot_no, units, lot_units, counts_at, spend_minor, currency, sold_minor,"
    " revenue_minor, breakage_minor, refunded_minor, returned_minor, fee_minor,"
    " gpu_estimated_micro_usd, gpu_micro_usd,"
    " gpu_unreported_micro_usd FROM comptroller_line WHERE book_id = 1 AND seq = 2 AND idx = 0"
)
COPIED_GRANT = (
    "INSERT INTO comptroller_grant SELECT book_id, 77, seq, 'k', request_hash, at, plan, operation,"
    " attributes, member, policy_version, gpu_cost_micro_usd, allocations"
    " FROM comptroller_grant WHERE book_id = 1 AND number = 1"
)

TAMPERING: dict[str, tuple[str, int | None, str]] = {
    # what is done: (SQL, the record that must be named, a part of what is said)
    "a record's bytes": (BYTES_CHANGED, 2, "hash of the record"),
    "a record's kind": (
        f"UPDATE comptroller_record SET kind = 'credits' WHERE {U} AND seq = 1",
        1,
        "record 1, kind",
    ),
    "a record's key": (
        f"UPDATE comptroller_record SET once = NULL WHERE {U} AND seq = 7",
        7,
        "record 7, once",
    ),
    "a record's instant": (
        f"UPDATE comptroller_record SET at = at + 1 WHERE {U} AND seq = 7",
        7,
        "record 7, at",
    ),
    "a hash": (
        f"UPDATE comptroller_record SET hash = zeroblob(32) WHERE {U} AND seq = 3",
        4,
        "hash of the record before",
    ),
    "a record gone": (
        f"DELETE FROM comptroller_record WHERE {U} AND seq = 5",
        5,
        "record 5 is missing",
    ),
    "the last record gone": (
        f"DELETE FROM comptroller_record WHERE {U} AND seq = 20",
        20,
        "record 20 missing",
    ),
    "the head": (
        "UPDATE comptroller_book SET head = zeroblob(32) WHERE id = 1",
        20,
        "head of the book",
    ),
    "a transfer's amount": (
        f"UPDATE comptroller_transfer SET amount = amount + 1 WHERE {U} AND seq = 6",
        6,
        "transfer 6 0, amount",
    ),
    "a transfer gone": (
        f"DELETE FROM comptroller_transfer WHERE {U} AND seq = 6",
        6,
        "transfer 6 0 is missing",
    ),
    "a transfer more": (INSERTED_TRANSFER, 1, "transfer 1 9 is extra"),
    "a line's units": (
        f"UPDATE comptroller_line SET units = 1 WHERE {U} AND seq = 2",
        2,
        "line 2 0, units",
    ),
    "a line's instant": (
        f"UPDATE comptroller_line SET counts_at = counts_at - 1 WHERE {U} AND seq = 2",
        2,
        "line 2 0, counts_at",
    ),
    "a line's revenue": (
        f"UPDATE comptroller_line SET revenue_minor = 1 WHERE {U} AND seq = 7 AND idx = 1",
        7,
        "line 7 1, revenue_minor",
    ),
    "a line gone": (
        f"DELETE FROM comptroller_line WHERE {U} AND seq = 10",
        10,
        "line 10 0 is missing",
    ),
    "a line more": (COPIED_LINE, 2, "line 2 7 is extra"),
    "a lot's price": (
        f"UPDATE comptroller_lot SET price_minor = 1 WHERE {U} AND number = 1",
        1,
        "lot 1, price_minor",
    ),
    "a lot's expiry": (
        f"UPDATE comptroller_lot SET expires_at = NULL WHERE {U} AND number = 1",
        1,
        "lot 1, expires_at",
    ),
    "a lot gone": (f"DELETE FROM comptroller_lot WHERE {U} AND number = 2", 17, "lot 2 is missing"),
    "a balance's units": (
        f"UPDATE comptroller_lot_balance SET units_used = units_used - 1 WHERE {U} AND lot_no = 1",
        1,
        "balance of lot 1, units_used",
    ),
    "a balance's cents": (
        f"UPDATE comptroller_lot_balance SET money_out_minor = 0 WHERE {U} AND lot_no = 1",
        1,
        "balance of lot 1, money_out_minor",
    ),
    "a refund undone": (
        f"UPDATE comptroller_lot_balance SET refunded = 0 WHERE {U} AND lot_no = 1",
        1,
        "balance of lot 1, refunded",
    ),
    "an account's asset": (
        f"UPDATE comptroller_ledger_account SET asset = 'usd' WHERE {U} AND id = 'lot:1'",
        None,
        "ledger account lot:1, asset",
    ),
    "a payment reference": (
        f"UPDATE comptroller_payment_reference SET reference = 'other' WHERE {U} AND seq = 1",
        1,
        "payment reference purchase order-0 is missing",
    ),
    "a payment reference's lot": (
        f"UPDATE comptroller_payment_reference SET lot_no = 2 WHERE {U} AND origin = 'refund'",
        19,
        "payment reference refund back, lot_no",
    ),
    "a grant's attributes": (
        f"UPDATE comptroller_grant SET attributes = '{{}}' WHERE {U} AND number = 2",
        6,
        "grant 2, attributes",
    ),
    "a grant's key": (
        f"UPDATE comptroller_grant SET key_hash = 'x' WHERE {U} AND number = 2",
        6,
        "grant 2, key_hash",
    ),
    "a grant's allocations": (
        f"UPDATE comptroller_grant SET allocations = '[]' WHERE {U} AND number = 2",
        6,
        "grant 2, allocations",
    ),
    "a grant gone": (f"DELETE FROM comptroller_grant WHERE {U} AND number = 3", 8, "grant 3 is"),
    "a grant more": (COPIED_GRANT, 2, "grant 77 is extra"),
    "a hold's expiry": (
        f"UPDATE comptroller_hold SET expires_at = expires_at + 1 WHERE {U}",
        20,
        "hold 4, expires_at",
    ),
    "a hold's return": (
        f"UPDATE comptroller_hold SET returns = 0 WHERE {U}",
        20,
        "hold 4, returns",
    ),
    "a hold gone": (f"DELETE FROM comptroller_hold WHERE {U}", 20, "hold 4 is missing"),
    "an end's status": (
        f"UPDATE comptroller_ending SET status = 'released' WHERE {U} AND grant_no = 2",
        7,
        "end of grant 2, status",
    ),
    "an end's units": (
        f"UPDATE comptroller_ending SET units_charged = 0 WHERE {U} AND grant_no = 2",
        7,
        "end of grant 2, units_charged",
    ),
    "an end gone": (
        f"DELETE FROM comptroller_ending WHERE {U} AND grant_no = 3",
        9,
        "end of grant 3 is missing",
    ),
    "a late end's cost": (
        f"UPDATE comptroller_late_ending SET gpu_cost_micro_usd = 0 WHERE {U}",
        11,
        "late end of grant 1, gpu_cost_micro_usd",
    ),
    "an attempt's time": (
        f"UPDATE comptroller_gpu_attempt SET gpu_seconds = '1' WHERE {U}",
        5,
        "attempt 1 1, gpu_seconds",
    ),
    "the plan": (
        "UPDATE comptroller_book SET plan = NULL WHERE id = 1",
        None,
        "settings, plan",
    ),
    "the time zones": (
        "UPDATE comptroller_book SET zones = '[\"UTC\"]' WHERE id = 1",
        None,
        "settings, zones",
    ),
    "the spend cap": (
        "UPDATE comptroller_book SET spend_cap_minor = 501 WHERE id = 1",
        None,
        "settings, spend_cap_minor",
    ),
    "paid use": (
        "UPDATE comptroller_book SET paid_use = 'auto' WHERE id = 1",
        None,
        "settings, paid_use",
    ),
    "why it was frozen gone": (
        f"DELETE FROM comptroller_erasable WHERE {U} AND value = 'chargeback'",
        15,
        "value of hash",
    ),
    "freezing": (
        "UPDATE comptroller_book SET frozen = 'x' WHERE id = 1",
        None,
        "settings, frozen",
    ),
    "the number of grants": (
        "UPDATE comptroller_book SET grants = 3 WHERE id = 1",
        None,
        "settings, grants",
    ),
    "the number of lots": (
        "UPDATE comptroller_book SET lots = 9 WHERE id = 1",
        20,
        "lots of the book",
    ),
    "the time of the book": (
        "UPDATE comptroller_book SET at = at - 1 WHERE id = 1",
        20,
        "time of the book",
    ),
    "a name behind a hash": (
        f"UPDATE comptroller_erasable SET value = 'bob' WHERE {U} AND value = 'ann'",
        2,
        "value of hash",
    ),
    "a text behind a hash gone": (
        f"DELETE FROM comptroller_erasable WHERE {U} AND value = 'a dog'",
        2,
        "value of hash",
    ),
    "the account's name gone": (
        f"DELETE FROM comptroller_account_name WHERE {U}",
        None,
        "name",
    ),
    "the book gone": (
        "DELETE FROM comptroller_book WHERE id = 1",
        None,
        "rows of comptroller_record",
    ),
}


@pytest.mark.parametrize("change", TAMPERING)
def test_every_change_of_a_row_is_found_with_its_book_and_record(books, change):
    sql, seq, said = TAMPERING[change]
    found = tamper(books, sql)
    assert (1, seq) in places(found), [str(each) for each in found]
    assert any(each.seq == seq and said in each.what for each in found), [*map(str, found)]
    assert {each.book for each in found} <= {1, None}
    assert all("\n" not in str(each) for each in found)


@pytest.mark.parametrize(
    "change",
    [
        "comptroller_account_name SET salt = 1000000000000000000",
        "comptroller_hold SET expires_at = 'soon'",
        "comptroller_line SET counts_at = 'then'",
        "comptroller_record SET recorded_at = 1000000000000000000",
        "comptroller_record SET body = 1.5",
    ],
)
def test_a_row_that_cannot_even_be_read_is_found(books, change):
    # SQLite keeps any value in any column, once its checks are off.
    found = tamper(books, f"UPDATE {change} WHERE {U}")
    assert found[0].book == 1
    assert "what can be read" in str(found[0])
    # What the rest of the book has spent of budgets is not known then.
    assert {each.book for each in found[1:]} <= {None}


def test_a_policy_version_that_is_no_text_is_found(books):
    found = tamper(books, "UPDATE comptroller_policy_version SET content = x'ff'")
    assert "content of policy version" in str(found[0])


def test_a_policy_version_that_is_not_what_its_hash_says_is_found(books):
    found = tamper(
        books,
        """UPDATE comptroller_policy_version
            SET content = replace(content, '"units":10', '"units":99')""",
    )
    assert any("content of policy version" in each.what and each.book is None for each in found)


def test_a_budget_that_is_not_the_sum_of_what_was_charged_is_found(books):
    (found,) = tamper(
        books,
        "UPDATE comptroller_budget_day SET spent_micro_usd = spent_micro_usd - 1"
        " WHERE starts_at = (SELECT min(starts_at) FROM comptroller_budget_day)",
    )
    assert (found.book, found.seq) == (None, None)
    assert int(found.expected) == int(found.found) + 1


# --- at scale ---------------------------------------------------------------------------------


def test_progress_is_told_and_other_books_do_not_matter(books):
    told: list[tuple[int, int]] = []
    assert books.comptroller.verify(progress=lambda done, total: told.append((done, total))) == []
    assert told[-1] == (22, 22)
    assert told == sorted(told)


def test_a_book_of_several_pages_is_verified_page_by_page(monkeypatch, books):
    monkeypatch.setattr("billing.chain.entries.__defaults__", (3,))
    assert books.comptroller.verify() == []
    found = tamper(
        books,
        "UPDATE comptroller_line SET units = 1 WHERE book_id = 1 AND seq = 2",
        "DELETE FROM comptroller_transfer WHERE book_id = 1 AND seq = 6",
    )
    assert places(found) == {(1, 2), (1, 6)}


def test_books_can_be_verified_while_they_go_on(tmp_path):
    policies = plan(RULES, more=MORE)
    with a_world(policies, database=f"sqlite:///{tmp_path / 'books.db'}") as world:
        lived_in(world)

        def more(done: int, total: int) -> None:
            world.grant(1, account="w")

        assert world.comptroller.verify(progress=more) == []


def test_forgetting_an_account_writes_first_what_has_fallen_due(books):
    grant = books.grant(1, account="x")
    books.clock.advance(DAY)
    books.comptroller.forget("x")
    assert books.comptroller.verify() == []
    assert books.rows("SELECT kind, at FROM comptroller_record WHERE book_id = 3 AND seq > 1") == [
        ("expired", micros(grant.expires_at)),
        ("forget", micros(books.clock())),
    ]


def test_another_reason_for_a_freeze_is_found_and_a_forgotten_one_is_sound():
    with a_world(plan(RULES, more=MORE)) as world:
        world.buy("ten")
        world.comptroller.freeze("u", reason="chargeback")
        copy = driver_of(world).serialize()
        (found,) = tamper(world, "UPDATE comptroller_book SET frozen = 'other'")
        assert (found.what, found.expected, found.found) == (
            "settings, frozen",
            "chargeback",
            "other",
        )
        restore(world, copy)
        world.comptroller.forget("u")
        assert world.comptroller.verify() == []
