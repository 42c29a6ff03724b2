"""A host's code as it is checked by mypy, which reads this file: each line here runs, and has the type that it says."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import assert_type

import pytest

from policies import PolicySet
from quota import AsyncComptroller, Comptroller, Denial, Denied, Ending, Grant

ONE_A_DAY = PolicySet.parse("""
schema: 1
operations: {image.generate: {gpu_cost: {usd: 0.02}}}
plans: {free: {sources: [{kind: daily_allowance, units: 1}]}}
default_plan: free
""")


def test_a_decision_is_a_grant_or_a_denial_to_type_checkers_too() -> None:
    with Comptroller.open(ONE_A_DAY, "sqlite://") as comptroller:
        decision = comptroller.admit(account="u", operation="image.generate", key="1")
        if decision:
            assert_type(decision, Grant)
        else:
            assert_type(decision, Denial)
        assert decision.granted
        assert decision.units_by_source == {"daily_allowance": 1}

        refused = comptroller.admit(account="u", operation="image.generate", key="2")
        if refused.granted:
            raise AssertionError(refused.expires_at)
        assert_type(refused, Denial)
        assert refused.reason == "allowance_exhausted"


def test_a_refused_job_and_a_jobs_grant_have_types() -> None:
    with Comptroller.open(ONE_A_DAY, "sqlite://") as comptroller:
        with comptroller.job(account="u", operation="image.generate", key="1") as job:
            comptroller.start(job.id)
            job.gpu_seconds = None
        assert job.ending is not None
        assert_type(job.ending, Ending)
        with (
            pytest.raises(Denied) as refused,
            comptroller.job(account="u", operation="image.generate", key="2"),
        ):
            raise AssertionError("not granted")
        assert_type(refused.value.denial, Denial)
        assert refused.value.denial.reason == "allowance_exhausted"


def test_calls_of_the_async_face_are_coroutines_of_the_same_types() -> None:
    async def main() -> None:
        async with AsyncComptroller.open(ONE_A_DAY, "sqlite://") as comptroller:
            decision = await comptroller.admit(account="u", operation="image.generate", key="1")
            assert decision
            async with asyncio.TaskGroup() as group:
                renewed = group.create_task(comptroller.extend(decision.id, timedelta(hours=2)))
                group.create_task(comptroller.set_plan("v", "free"))
            assert_type(renewed.result(), Grant)
            ending = await comptroller.settle(decision.id)
            assert_type(ending, Ending)
            assert ending.by_this_call

    asyncio.run(main())


def test_gpu_seconds_may_be_any_number_that_a_host_measures() -> None:
    policies = PolicySet.parse("""
schema: 1
gpus: {a10: {usd_per_hour: 3.60}}
operations: {image.generate: {gpu_cost: {gpu: a10, gpu_seconds: 1}}}
plans: {free: {sources: [{kind: daily_allowance, units: 3}]}}
default_plan: free
""")
    costs = []
    with Comptroller.open(policies, "sqlite://") as comptroller:
        for seconds in (4, 4.2, Decimal("4.2")):
            with comptroller.job(
                account="u", operation="image.generate", key=f"{seconds!r}"
            ) as job:
                job.gpu_seconds = seconds
            assert job.ending is not None
            costs.append(job.ending.gpu_cost_micro_usd)
    assert costs == [4_000, 4_200, 4_200]
