"""Rate limits: the generic cell rate algorithm against a naive token bucket."""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from policies import History, RateRead
from policies.instants import from_micros
from tests.policies.build import MICRO, NOW, limit, question


class NaiveBucket:
    """A bucket of `burst` tokens that fills with `limit` tokens per `per`, in exact fractions."""

    def __init__(self, limit: int, per: timedelta, burst: int) -> None:
        self.rate = Fraction(limit, per // MICRO)
        self.burst, self.tokens, self.at = burst, Fraction(burst), NOW

    def admit(self, at: datetime) -> bool:
        elapsed = (at - self.at) // MICRO
        self.tokens = min(Fraction(self.burst), self.tokens + elapsed * self.rate)
        self.at = at
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@given(
    st.integers(1, 13),
    st.sampled_from(["1s", "7s", "1m", "1h"]),
    st.one_of(st.none(), st.integers(1, 20)),
    st.lists(st.one_of(st.integers(0, 5), st.integers(0, 10**7)), min_size=1, max_size=60),
)
def test_a_rate_limit_admits_exactly_what_a_naive_token_bucket_does(count, per, burst, gaps):
    parameters = {"kind": "rate", "limit": count, "per": per}
    policy = limit(**parameters, **({} if burst is None else {"burst": burst}))
    bucket = NaiveBucket(count, timedelta(microseconds=policy.per.micros), burst or count)
    at, history = NOW, History()
    for gap in gaps:
        at += gap * MICRO
        check = policy.check(question(), history, at)
        assert check.ok == bucket.admit(at)
        assert check.limit == (burst or count)
        assert check.ok == (check.used < check.limit)
        if check.ok:
            assert check.rate is not None
            read, tat = check.rate
            history = History(rates={(read.policy, read.member): (tat, read.scale)})
        else:
            chance = policy.next_chance(question(), history, at)
            assert policy.check(question(), history, chance).ok
            assert not policy.check(question(), history, chance - MICRO).ok


def test_a_burst_counts_the_first_request_and_is_the_limit_where_none_is_given():
    for parameters, admitted in (({}, 5), ({"burst": 1}, 1), ({"burst": 8}, 8)):
        policy, history, count = limit(kind="rate", limit=5, per="1m", **parameters), History(), 0
        while (check := policy.check(question(), history, NOW)).ok:
            assert check.rate is not None
            history = History(rates={("rate", None): (check.rate[1], check.rate[0].scale)})
            count += 1
        assert count == admitted


def test_a_rate_that_becomes_another_forgives_no_request():
    old, new = limit(kind="rate", limit=7, per="1m"), limit(kind="rate", limit=3, per="1m")
    check = old.check(question(), History(), NOW)
    assert check.rate is not None
    tat, scale = check.rate[1], check.rate[0].scale
    history = History(rates={("rate", None): (tat, scale)})
    read = new.reads(question())[0]
    assert Fraction(history.read(read, NOW), 3) >= Fraction(tat, 7)
    assert Fraction(history.read(read, NOW), 3) < Fraction(tat, 7) + 1


def test_a_rate_counts_for_the_account_or_for_each_member():
    account = limit(kind="rate", limit=5, per="1m")
    member = limit(kind="rate", limit=5, per="1m", scope="member", name="each")
    assert account.reads(question(member="ann")) == (RateRead("rate", 5),)
    assert member.reads(question(member="ann")) == (RateRead("each", 5, "ann"),)


def test_a_theoretical_arrival_time_is_exact_for_limits_that_divide_no_microsecond():
    policy = limit(kind="rate", limit=7, per="1m", burst=1)
    check = policy.check(question(), History(), NOW)
    assert check.rate is not None
    read, tat = check.rate
    assert Fraction(tat, read.scale) - Fraction((NOW - from_micros(0)) // MICRO) == Fraction(
        60_000_000, 7
    )
