"""Names and free text are in no hashed bytes, and what stands behind the hashes can be erased."""

from __future__ import annotations

import pytest

from quota import InvalidRequest
from tests.guarantees.test_chained import broken_links
from tests.world import HOUR, World, a_world, discrepancies, plan

SECRETS = ("alice@example.com", "bob-the-member", "job-of-alice", "a poem about alice", "she asked")


@pytest.fixture
def alice():
    """An account with secrets everywhere that a caller may put them, in its very first request too."""
    policies = plan(
        "{paid_use: auto, limits: [{kind: rate, limit: 9, per: 1h, scope: member},"
        " {kind: concurrency, limit: 3, scope: member}],"
        " sources: [{kind: daily_allowance, units: 9, scope: member}, {kind: credits}]}"
    )
    account, member, key, prompt, reason = SECRETS
    with a_world(policies) as world:
        for n in (2, 3):
            grant = world.grant(
                n,
                account=account,
                member=member,
                key=f"{key}-{n}",
                attributes={"prompt": f"{prompt} {n}"},
            )
        world.comptroller.settle(grant.id)
        world.buy(account=account)
        world.comptroller.freeze(account, reason=reason)
        world.deny(1, account=account, member=member)
        world.comptroller.set_account(account, tags={"mail": account})
        assert world.comptroller.denials(account)
        yield world


def found(world: World, *tables: str) -> list[tuple[str, str]]:
    """Return which secrets are to be found in which tables."""
    rows = world.dump()
    return [
        (table, secret)
        for table in tables or rows
        for secret in SECRETS
        if any(secret in str(value) for row in rows[table] for value in row)
        or any(
            secret.encode() in value
            for row in rows[table]
            for value in row
            if isinstance(value, bytes)
        )
    ]


def test_guarantee_forgettable_hashed_bytes_hold_no_names_and_no_free_text(alice):
    assert found(alice, "comptroller_record") == []


def test_guarantee_forgettable_only_what_can_be_erased_holds_them(alice):
    holders = {table for table, _ in found(alice)}
    assert holders <= {
        "comptroller_account_name",
        "comptroller_erasable",
        "comptroller_denial",
        "comptroller_book",
    }


def test_guarantee_forgettable_nothing_is_left_and_the_chain_still_proves_itself(alice):
    assert found(alice)
    assert alice.comptroller.forget(SECRETS[0])
    assert found(alice) == []
    assert broken_links(alice) == []
    assert discrepancies(alice.comptroller) == []
    assert not alice.comptroller.forget(SECRETS[0])


def test_guarantee_forgettable_a_grant_that_is_forgotten_can_still_end(alice):
    alice.comptroller.unfreeze(SECRETS[0])
    grant = alice.grant(1, account=SECRETS[0], attributes={"prompt": SECRETS[3]})
    alice.comptroller.forget(SECRETS[0])
    ending = alice.comptroller.settle(grant.id, delivered={"n": 1})
    assert ending.by_this_call
    told = alice.comptroller.get(grant.id)
    assert (told.account, told.attributes["prompt"], told.key) == ("(erased)",) * 3
    assert found(alice) == []


def test_guarantee_forgettable_who_comes_back_is_somebody_new(alice):
    alice.comptroller.forget(SECRETS[0])
    assert alice.comptroller.balance(SECRETS[0]).credits == 0
    fresh = alice.grant(2, account=SECRETS[0], key=f"{SECRETS[2]}-2", member=SECRETS[1])
    assert not fresh.replayed


def test_guarantee_forgettable_open_grants_of_the_forgotten_still_expire(alice):
    alice.comptroller.forget(SECRETS[0])
    alice.clock.advance(2 * HOUR)
    assert alice.comptroller.sweep() == 1


def test_guarantee_forgettable_two_accounts_that_say_the_same_have_other_hashes(world):
    for account in ("u", "v"):
        world.grant(account=account, key="same", attributes={"prompt": "the same words"})
    bodies = world.rows("SELECT body FROM comptroller_record WHERE kind = 'grant'")
    assert len(bodies) == len(set(bodies)) == 2
    hashes = world.rows("SELECT hash FROM comptroller_erasable WHERE value = 'the same words'")
    assert len(set(hashes)) == 2


def test_guarantee_forgettable_a_name_must_be_one(world):
    with pytest.raises(InvalidRequest):
        world.comptroller.forget("")
