"""Redis keeps an account for as long as its windows look back, and lets go of who asks no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import redis

from policies.instants import micros
from policies.request import Circumstances
from quota.prefilter.answers import Verdict, answered, asked
from quota.prefilter.compiler import Compiler
from quota.prefilter.messages import HOUR_MS, WEEK_MS
from quota.prefilter.prints import redis_key, request_print, unbooked_print
from quota.prefilter.script import script_text
from tests.prefilter.test_limits_only import ONE_AT_A_TIME
from tests.prefilter.worlds import START


@pytest.mark.parametrize("told", [None, START, START + timedelta(days=9_000)])
def test_who_asks_no_more_is_let_go_after_a_week_whoever_tells_the_time(redis_server, told):
    now, request = told or datetime.now(UTC), ONE_AT_A_TIME.request("ping", {}, None, consent=False)
    rules = ONE_AT_A_TIME.rules("p", "ping")
    program = Compiler(ONE_AT_A_TIME).program(rules, request, Circumstances("p"), now)
    assert program
    raw = unbooked_print("ada", "k") + request_print("")
    assert program is not None
    args = asked(micros(told) if told else "", 2**52, raw, "", program.data, b"")
    with redis.Redis.from_url(redis_server.url) as client:
        client.delete(redis_key("ada"))
        verdict, *_ = answered(client.eval(script_text(), 1, redis_key("ada"), *args))
        left = client.pttl(redis_key("ada"))
    assert verdict == Verdict.PASSED
    assert WEEK_MS + HOUR_MS - 60_000 < left <= WEEK_MS + HOUR_MS
