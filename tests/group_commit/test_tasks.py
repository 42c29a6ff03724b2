"""AsyncComptroller with many tasks at once, whose calls share transactions."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from contextvars import ContextVar
from datetime import timedelta

import pytest

from policies.policy_set import PolicySet
from quota import AsyncComptroller, Comptroller, ComptrollerError, Denial, InvalidRequest
from quota.group_commit.batch import run_batch
from tests.databases import locked
from tests.world import POLICIES, START, discrepancies

ACCOUNTS = ("ann", "bob", "cyd", "dan")
LIMIT = 30


@pytest.fixture
def batches(monkeypatch):
    """How many calls each batch of this test has had."""
    sizes = []

    def counted(store, calls):
        sizes.append(len(calls))
        run_batch(store, calls)

    monkeypatch.setattr("quota.group_commit.queue.run_batch", counted)
    return sizes


def opened(database, **more):
    return AsyncComptroller.open(PolicySet.parse(POLICIES), database, clock=lambda: START, **more)


def ask(comptroller, account, key, n=1):
    return comptroller.admit(account=account, operation="clip", attributes={"n": n}, key=key)


def found(database, grants):
    """See in books opened anew that each of these grants is there, and that the books are sound."""
    with Comptroller.open(PolicySet.parse(POLICIES), database, clock=lambda: START) as comptroller:
        for grant in grants:
            known = comptroller.find(grant.account, key=grant.key)
            assert known is not None
            assert known.id == grant.id
        assert discrepancies(comptroller) == []


def test_guarantee_exact_many_tasks_are_granted_30_of_30_for_each_account(database, batches):
    async def story():
        async with opened(database) as comptroller:
            asked = [(name, f"k{number}") for number in range(50) for name in ACCOUNTS]
            return await asyncio.gather(*(ask(comptroller, *each) for each in asked))

    answers = asyncio.run(story())
    granted = [each for each in answers if each.granted]
    assert Counter(grant.account for grant in granted) == dict.fromkeys(ACCOUNTS, LIMIT)
    assert {each.reason for each in answers if isinstance(each, Denial)} == {"allowance_exhausted"}
    assert max(batches) > 10
    found(database, granted)


def test_without_group_commit_the_answers_are_the_same(database, batches):
    async def story():
        async with opened(database, group_commit=False) as comptroller:
            return await asyncio.gather(*(ask(comptroller, "u", f"k{n}") for n in range(40)))

    assert sum(each.granted for each in asyncio.run(story())) == LIMIT
    assert batches == []


async def a_turn():
    """Let all others go on once."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future


class Lives:
    """Tasks that do anything, with what each call has answered."""

    def __init__(self, comptroller, seed):
        self.comptroller, self.dice = comptroller, random.Random(seed)
        self.grants, self.ends, self.tasks = {}, [], []

    async def live(self):
        for _ in range(12):
            call = self.dice.choice([self.admit] * 4 + [self.end] * 3 + [self.fail, self.give_up])
            await call()

    async def admit(self):
        account, key = self.dice.choice(ACCOUNTS), f"k{self.dice.randrange(60)}"
        decision = await ask(self.comptroller, account, key)
        if decision.granted:
            before = self.grants.setdefault((account, key), decision)
            assert before.id == decision.id
            assert before.findings == decision.findings

    async def end(self):
        if self.grants:
            grant = self.dice.choice(list(self.grants.values()))
            if self.dice.random() < 0.5:
                ending = await self.comptroller.settle(grant.id, gpu_seconds=3)
            else:
                ending = await self.comptroller.release(grant.id, reason="moderated")
            self.ends.append(ending)

    async def fail(self):
        account = self.dice.choice(ACCOUNTS)
        with pytest.raises(InvalidRequest):
            await ask(self.comptroller, account, "k", n=5000)
        with pytest.raises(ComptrollerError):
            await self.comptroller.start("gr_12345678_1")

    async def give_up(self):
        account, key = self.dice.choice(ACCOUNTS), f"given-up-{self.dice.random()}"
        task = asyncio.ensure_future(ask(self.comptroller, account, key))
        for _ in range(self.dice.randrange(4)):
            await a_turn()
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("seed", range(3))
def test_whatever_many_tasks_do_at_once_no_call_takes_another_with_it(database, batches, seed):
    async def story():
        async with opened(database) as comptroller:
            lives = Lives(comptroller, seed)
            await asyncio.gather(*(lives.live() for _ in range(24)))
            last = [await ask(comptroller, name, "last", n=30) for name in ACCOUNTS]
            used = [(await comptroller.balance(name)).allowances[0].used for name in ACCOUNTS]
            return lives, last, used

    lives, last, used = asyncio.run(story())
    # What is released as `moderated` is charged: nothing comes back, and so the limit was given out once.
    assert all(0 < units <= LIMIT for units in used)
    assert not any(each.granted for each in last)
    first = Counter(each.grant_id for each in lives.ends if each.by_this_call)
    assert set(first) == {each.grant_id for each in lives.ends}
    assert set(first.values()) == {1}
    assert max(batches) > 2
    found(database, lives.grants.values())


def test_a_call_that_is_cancelled_while_it_waits_disturbs_no_other(database):
    async def story():
        async with opened(database) as comptroller:
            await ask(comptroller, "ann", "before")
            with locked(database):
                tasks = [asyncio.ensure_future(ask(comptroller, "ann", f"k{n}")) for n in range(12)]
                await a_turn()
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.wait(tasks[::2])
            answers = await asyncio.gather(*tasks[1::2])
            again = [await ask(comptroller, "ann", f"k{n}") for n in range(12)]
            return answers, again

    answers, again = asyncio.run(story())
    assert all(each.granted and not each.replayed for each in answers)
    assert [each.id for each in again[1::2]] == [each.id for each in answers]
    found(database, again)


def test_calls_that_wait_are_answered_before_the_books_are_closed(database):
    async def story():
        comptroller = opened(database)
        tasks = [asyncio.ensure_future(ask(comptroller, f"u{n}", "k")) for n in range(40)]
        await a_turn()
        await comptroller.close()
        assert all(task.done() for task in tasks)
        return [task.result() for task in tasks]

    found(database, asyncio.run(story()))


@pytest.mark.parametrize("group_commit", [True, False])
def test_closing_twice_does_no_harm(database, redis_url, group_commit):
    async def story():
        async with opened(database, redis=redis_url, group_commit=group_commit) as comptroller:
            await asyncio.gather(*(ask(comptroller, f"u{n}", "k") for n in range(4)))
            await asyncio.gather(comptroller.close(), comptroller.close())
        await comptroller.close()
        comptroller.sync.close()

    asyncio.run(story())


def test_several_event_loops_share_one_comptroller(database):
    comptroller = opened(database)
    answers = []

    def loop(name):
        async def story():
            return await asyncio.gather(*(ask(comptroller, "u", f"{name}-{n}") for n in range(20)))

        answers.extend(asyncio.run(story()))

    threads = [threading.Thread(target=loop, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(comptroller.close())
    assert len(answers) == 60
    assert sum(each.granted for each in answers) == LIMIT
    found(database, [each for each in answers if each.granted])


def test_a_loop_that_ended_before_its_answer_came_keeps_nobody_waiting(database):
    comptroller = opened(database)

    async def ask_and_leave():
        asyncio.ensure_future(ask(comptroller, "u", "left"))  # noqa: RUF006 - it is to be left
        await a_turn()

    async def story():
        return await asyncio.gather(*(ask(comptroller, f"u{n}", "k") for n in range(10)))

    with locked(database):
        asyncio.run(ask_and_leave())
    assert all(each.granted for each in asyncio.run(story()))
    asyncio.run(comptroller.close())


def test_each_call_has_the_context_variables_of_its_caller(database):
    caller: ContextVar[str] = ContextVar("caller")
    seen = set()

    def clock():
        seen.add(caller.get("nobody"))
        return START

    async def one(comptroller, number):
        caller.set(f"caller-{number}")
        await ask(comptroller, f"u{number}", "k")

    async def story():
        policies = PolicySet.parse(POLICIES)
        async with AsyncComptroller.open(policies, database, clock=clock) as comptroller:
            seen.clear()
            await asyncio.gather(*(one(comptroller, number) for number in range(20)))
            assert seen == {f"caller-{number}" for number in range(20)}

    asyncio.run(story())


def test_a_job_gives_its_units_back_also_where_its_task_is_cancelled(database):
    async def work(comptroller, number, all_at_work):
        async with comptroller.job(account="u", operation="clip", key=f"job-{number}"):
            await all_at_work.wait()
            await asyncio.get_running_loop().create_future()

    async def story():
        async with opened(database) as comptroller:
            all_at_work = asyncio.Barrier(21)
            tasks = [
                asyncio.ensure_future(work(comptroller, number, all_at_work))
                for number in range(20)
            ]
            await all_at_work.wait()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            balance = await comptroller.balance("u")
            return balance.open_grants, balance.allowances[0].used

    assert asyncio.run(story()) == (0, 0)


def test_a_busy_account_keeps_no_other_waiting(database):
    if database.startswith("sqlite"):
        pytest.skip("one writer holds every account of a file")
    import psycopg

    async def story():
        async with opened(database) as comptroller:
            await asyncio.gather(*(ask(comptroller, name, "before") for name in ACCOUNTS))
            with psycopg.connect(database) as other:
                other.execute(
                    "SELECT FROM comptroller.book JOIN comptroller.account_name ON book_id = id"
                    " WHERE name = 'ann' FOR UPDATE OF book"
                )
                held = asyncio.ensure_future(ask(comptroller, "ann", "k"))
                others = [
                    ask(comptroller, name, f"k{n}") for n in range(9) for name in ACCOUNTS[1:]
                ]
                assert all(each.granted for each in await asyncio.gather(*others))
                assert not held.done()
            assert (await held).granted
            grant = await ask(comptroller, "bob", "later")
            ending = await comptroller.extend(grant.id, timedelta(hours=3))
            assert ending.live

    asyncio.run(story())
