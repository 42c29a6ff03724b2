"""The circuit breaker, on a clock that the tests set."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota.redis.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker_on(clock: Clock, jitter: float = 1.0) -> Breaker:
    """With jitter 1, each wait has its nominal length: 1, 2, 4, 8, 8, ..."""
    return Breaker(
        clock,
        failures=3,
        first_wait_seconds=1,
        longest_wait_seconds=8,
        probe_seconds=5,
        jitter=lambda: jitter,
    )


def test_a_closed_breaker_lets_everything_through(clock):
    breaker = breaker_on(clock)
    assert all(breaker.admits() for _ in range(100))
    assert breaker.state == "closed"


def test_it_opens_after_so_many_failures_in_a_row_and_not_before(clock):
    breaker = breaker_on(clock)
    for _ in range(10):
        breaker.failed()
        breaker.failed()
        assert breaker.state == "closed"
        breaker.succeeded()
    for _ in range(3):
        assert breaker.admits()
        breaker.failed()
    assert breaker.state == "open"
    assert not breaker.admits()


def test_one_refused_connection_opens_it(clock):
    breaker = breaker_on(clock)
    breaker.failed(refused=True)
    assert breaker.state == "open"


def test_after_the_wait_one_probe_goes_through_at_a_time(clock):
    breaker = breaker_on(clock)
    breaker.failed(refused=True)
    clock.now += 0.999
    assert not breaker.admits()
    clock.now += 0.001
    assert breaker.state == "half-open"
    assert [breaker.admits() for _ in range(5)] == [True, False, False, False, False]


def test_a_probe_that_succeeds_closes_it(clock):
    breaker = breaker_on(clock)
    breaker.failed(refused=True)
    clock.now += 1
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed()
    breaker.failed()
    assert breaker.admits()  # failures are counted anew


def test_probes_that_fail_double_the_wait_up_to_the_longest(clock):
    breaker = breaker_on(clock)
    breaker.failed(refused=True)
    for wait in (1, 2, 4, 8, 8, 8):
        clock.now += wait - 0.001
        assert not breaker.admits()
        clock.now += 0.001
        assert breaker.admits()
        breaker.failed()
    clock.now += 8
    assert breaker.admits()
    breaker.succeeded()
    breaker.failed(refused=True)
    clock.now += 1
    assert breaker.admits()  # and a success starts from the first wait again


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 0.5), (0.5, 0.75), (0.999, 0.9995)])
def test_a_wait_is_between_half_and_all_of_its_nominal_length(clock, jitter, wait):
    breaker = breaker_on(clock, jitter)
    breaker.failed(refused=True)
    clock.now += wait - 0.0001
    assert not breaker.admits()
    clock.now += 0.0002
    assert breaker.admits()


def test_what_began_before_the_opening_changes_nothing_when_it_ends(clock):
    breaker = breaker_on(clock)
    breaker.failed(refused=True)
    breaker.succeeded()
    assert breaker.state == "open"
    for _ in range(10):
        breaker.failed()
    clock.now += 1
    assert breaker.admits()  # the wait is no longer for them


def test_a_probe_without_a_verdict_does_not_block_for_ever(clock):
    breaker = breaker_on(clock)
    breaker.failed(refused=True)
    clock.now += 1
    assert breaker.admits()
    clock.now += 4.999
    assert not breaker.admits()
    clock.now += 0.001
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.state == "closed"


def test_of_many_threads_one_is_the_probe(clock):
    breaker = breaker_on(clock)
    breaker.failed(refused=True)
    clock.now += 1
    start = threading.Barrier(8)
    answers: list[bool] = []

    def ask() -> None:
        start.wait()
        answers.append(breaker.admits())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]


EVENTS = st.lists(
    st.one_of(
        st.just("succeeded"),
        st.just("failed"),
        st.just("refused"),
        st.just("ask"),
        st.floats(0, 20, allow_nan=False),
    ),
    max_size=60,
)


@given(events=EVENTS, jitter=st.floats(0, 0.999))
def test_whatever_happens_it_admits_when_closed_and_within_the_longest_wait_otherwise(
    events, jitter
):
    clock = Clock()
    breaker = breaker_on(clock, jitter)
    for event in events:
        match event:
            case "succeeded":
                breaker.succeeded()
            case "failed":
                breaker.failed()
            case "refused":
                breaker.failed(refused=True)
            case "ask":
                state = breaker.state
                admitted = breaker.admits()
                assert admitted or state != "closed"
                assert not (admitted and state == "open")
            case seconds:
                clock.now += seconds
    clock.now += 8  # the longest wait, and more than a probe may take
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.state == "closed"
