"""Whoever gets something wrong for the first time is told what, and what would be right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from policies import PolicySet
from quota import Comptroller, InvalidRequest, SchemaMismatch
from tests.world import a_world

TWO_PLANS = """
schema: 1
operations: {image.generate: {gpu_cost: {usd: 0.02}}}
plans:
  free: {sources: [{kind: daily_allowance, units: 1}]}
  gold: {extends: free}
default_plan: free
"""
ONE_PLAN = TWO_PLANS.replace("  gold: {extends: free}\n", "")
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"policies": None}, "policies must be a policy file's path or a PolicySet, not `None`"),
        ({"policies": {"schema": 1}}, "policies must be a policy file's path or a PolicySet"),
        ({"policies": TWO_PLANS}, "hand its text over as PolicySet.parse"),
        ({"redis": 6379}, "redis must be a URL, not `int`: write `redis://"),
        ({"clock": MIDNIGHT}, "clock must be a callable that returns a datetime, not `datetime"),
        ({"stripe": "sk_test_secret"}, "stripe must be StripeSettings(...), not `str`"),
    ],
    ids=str,
)
def test_an_argument_of_another_type_is_refused_when_the_books_are_opened(arguments, says):
    wanted: dict[str, Any] = {"policies": PolicySet.parse(TWO_PLANS), "database": "sqlite://"}
    with pytest.raises(InvalidRequest) as caught:
        Comptroller.open(**{**wanted, **arguments})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_grant_in_the_place_of_its_id_is_refused_with_what_to_pass():
    with a_world() as world:
        grant = world.grant()
        with pytest.raises(InvalidRequest, match=r"not by a Grant: pass its `\.id`"):
            world.comptroller.settle(grant)  # type: ignore[arg-type]
        assert world.comptroller.get(grant.id).live


@pytest.mark.parametrize("most", [0, -1, "5", 1.5])
def test_a_list_of_less_than_one_is_refused(most):
    with a_world() as world:
        for call in (world.comptroller.grants, world.comptroller.denials):
            with pytest.raises(InvalidRequest, match="most must be"):
                call("u", most=most)


def test_a_session_of_a_database_without_our_tables_says_so(tmp_path):
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    with a_world() as world, Session(other) as session:
        free = world.comptroller.policies.default_plan
        with pytest.raises(SchemaMismatch) as caught:
            world.comptroller.set_plan("u", free, session=session)
    assert "join a session of the database that was opened" in str(caught.value)


def test_an_account_on_a_plan_that_was_removed_is_told_apart_from_a_wrong_request(tmp_path):
    database = f"sqlite:///{tmp_path}/books.db"
    ask: dict[str, Any] = {"account": "u", "operation": "image.generate", "key": "1"}
    with Comptroller.open(PolicySet.parse(TWO_PLANS), database) as comptroller:
        comptroller.set_plan("u", "gold")
    with Comptroller.open(PolicySet.parse(ONE_PLAN), database) as comptroller:
        for call in (lambda: comptroller.admit(**ask), lambda: comptroller.balance("u")):
            with pytest.raises(InvalidRequest, match="the account is on plan `gold`, which the"):
                call()
        with pytest.raises(InvalidRequest, match="unknown plan `golf`"):
            comptroller.admit(**ask, plan="golf")
        assert comptroller.admit(**ask, plan="free").granted
