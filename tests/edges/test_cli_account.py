"""`comptroller account` and `grant`: one account, one grant."""

from __future__ import annotations

from policies import PolicySet
from quota import Comptroller
from quota.clock import system_clock
from tests.edges.conftest import POLICIES


def engine(product):
    return Comptroller.open(product.folder / "policies.yaml", product.database, clock=product.clock)


def test_an_account_is_shown_with_its_balance_grants_and_denials(cli, product):
    said = cli("account", "show", "ada")
    assert said.code == 0
    for text in (
        "ada",
        "plan free",
        "of 2 left",
        "latest grants",
        "settled",
        "allowance_exhausted",
    ):
        assert text in said.out, text


def test_it_can_tell_why_somebody_was_denied_at_12_03(cli, product):
    said = cli("account", "show", "ada", "--at", "2026-01-01 12:03")
    assert "the denial nearest to it" in said.out
    assert "2026-01-01 12:03:00  allowance_exhausted  image.generate on plan free" in said.out
    assert "daily_allowance passed over (2 of 2 used, 1 asked)" in said.out
    assert "would be granted at 2026-01-01 13:01:00" in said.out, "an open grant may expire"


def test_where_nothing_was_denied_it_says_so(cli, product):
    said = cli("account", "show", "ada", "--at", "2026-01-01 18:00")
    assert "no denial is recorded there" in said.out


def test_an_account_as_json_has_plain_values(cli, product):
    shown = cli("account", "show", "ada", "--json").json
    assert shown["balance"]["account"] == "ada"
    assert [grant["key"] for grant in shown["grants"]] == ["job-1", "job-0"]
    assert shown["grants"][0]["units_by_source"] == {"daily_allowance": 1}
    assert shown["denials"][0]["reason"] == "allowance_exhausted"
    assert shown["denials"][0]["first_at"] == "2026-01-01T12:03:00+00:00"


def test_an_account_that_nobody_knows_is_told_apart(cli, product):
    said = cli("account", "show", "adda")
    assert said.code == 0
    assert "nothing was ever asked for or given under this name" in said.out


def test_before_a_quiet_time_the_last_denial_is_shown(cli, product):
    said = cli("account", "show", "ada", "--at", "2026-01-02 09:00", "--around", "5m")
    assert "the last one before it" in said.out
    assert "2026-01-01 12:03:00  allowance_exhausted" in said.out
    assert cli("account", "show", "ada", "--at", "now", "--around", "soon").code == 2


def test_a_time_that_is_none_is_refused(cli, product):
    said = cli("account", "show", "ada", "--at", "tea time")
    assert said.code == 2
    assert "--at `tea time` is no time" in said.err


def test_times_are_read_as_people_write_them(cli, product):
    for text in ("yesterday 14:03", "today", "9:30", "2h ago", "2026-01-01", "now"):
        assert cli("account", "show", "ada", "--at", text).code == 0, text


def test_grants_are_listed_everywhere(cli, product):
    every = cli("account", "grants", "ada", "--json").json
    assert [grant["status"] for grant in every] == ["expired", "settled"]
    assert cli("grants", "ada", "--open", "--json").json == []
    assert "job-1" in cli("grants", "ada").out


def test_a_plan_is_set(cli, product):
    assert cli("set-plan", "ada", "pro").out == "ada is on plan pro\n"
    assert cli("account", "set-plan", "ada", "pro", "--json").json["plan"] == "pro"
    said = cli("account", "set-plan", "ada", "prow")
    assert said.code == 2
    assert "unknown plan `prow`" in said.err
    assert cli("account", "show", "ada", "--json").json["balance"]["plan"] == "pro"


def test_credits_are_given_once_per_reference(cli, product):
    give = ("add-credits", "ada", 7, "--reference", "launch")
    first, again = cli(*give, "--json").json, cli(*give, "--json").json
    assert (first["units"], first["replayed"]) == (7, False)
    assert (again["id"], again["replayed"]) == (first["id"], True)
    assert "until" in cli("account", "add-credits", "ada", 5, "--expires", "30d").out
    assert cli("account", "show", "ada", "--json").json["balance"]["credits"] == 12
    assert cli("account", "add-credits", "ada", 0).code == 2


def test_a_purchase_is_recorded(cli, product):
    said = cli("account", "record-purchase", "ada", "ten", "--reference", "order-77")
    assert "10 credits for $4.00" in said.out
    assert cli("account", "record-purchase", "ada", "tin", "--reference", "o-78").code == 2


def test_paid_use_is_set(cli, product):
    said = cli("account", "set-paid-use", "ada", "never", "--cap-minor", 500, "--per", "day")
    assert said.code == 0
    balance = cli("account", "show", "ada", "--json").json["balance"]
    assert (balance["paid_use"], balance["spend"]["cap_minor"]) == ("never", 500)
    assert cli("account", "set-paid-use", "ada", "sometimes").code == 2


def test_an_account_is_frozen_and_unfrozen(cli, product):
    assert cli("freeze", "ada", "--reason", "chargeback").code == 0
    assert "frozen" in cli("account", "show", "ada").out
    with engine(product) as comptroller:
        product.clock.advance(days=400)
        denied = comptroller.admit(account="ada", operation="image.generate", key="later")
        assert denied.reason == "account_frozen"
    assert cli("account", "unfreeze", "ada", "--json").json == {"account": "ada", "frozen": False}
    assert not cli("account", "show", "ada", "--json").json["balance"]["frozen"]


def test_an_account_is_forgotten_only_with_a_yes(cli, product):
    assert cli("account", "forget", "ada").code != 0
    assert cli("account", "forget", "ada", "--yes", "--json").json["found"] is True
    assert cli("account", "forget", "ada", "--yes", "--json").json["found"] is False
    assert cli("grants", "ada", "--json").json == []


def test_a_grant_is_shown_and_released(cli, product):
    assert cli("grant", "show", product.grant.id, "--json").json["key"] == "job-1"
    assert product.grant.id in cli("grant", "show", product.grant.id).out
    said = cli("grant", "release", product.grant.id, "--reason", "failed", "--gpu-seconds", "1.5")
    assert said.code == 0
    assert "had ended already: expired" in said.out


def test_an_open_grant_is_released_with_its_reason(cli, product):
    product.clock.set(system_clock())
    with engine(product) as comptroller:
        grant = comptroller.admit(account="bob", operation="image.generate", key="now")
    ending = cli("grant", "release", grant.id, "--reason", "failed", "--json").json
    assert (ending["status"], ending["by_this_call"], ending["units_charged"]) == (
        "released",
        True,
        0,
    )


def test_a_grant_that_never_was_is_named(cli, product):
    for command in ("show", "explain"):
        said = cli("grant", command, "gr_9_9")
        assert said.code == 2
        assert "there is no grant `gr_9_9`" in said.err
    assert cli("grant", "release", "gr_9_9").code == 2, "the reason is missing"


def test_a_denial_says_what_would_have_given_not_that_it_gave(cli, product):
    """A denial takes nothing, also where a source would have covered the request."""
    limited = PolicySet.parse(
        POLICIES.replace("    paid_use: auto\n", "    limits: [{kind: concurrency, limit: 1}]\n")
    )
    database = f"sqlite:///{product.folder / 'limited.db'}"
    with Comptroller.open(limited, database, clock=product.clock) as comptroller:
        assert comptroller.admit(account="ada", operation="image.generate", key="1")
        assert not comptroller.admit(account="ada", operation="image.generate", key="2")
    said = cli("account", "show", "ada", "--database", database).out
    assert "concurrency refused (1 of 1 used, 1 asked): concurrency_exceeded" in said
    assert "daily_allowance would give (1 of 2 used, 1 asked)" in said
