"""Books with every kind of record, and doing to them what the database would refuse."""

from __future__ import annotations

from typing import Any

from billing.discrepancy import Discrepancy
from quota.testing import assert_books_sound
from tests.world import DAY, HOUR, World

RULES = (
    "{paid_use: auto,"
    " limits: [{kind: rate, limit: 100, per: 1m}, {kind: concurrency, limit: 9},"
    " {kind: usage, units: 90, per: 1mo}, {kind: spend, limit: {usd: 900, eur: 900}, per: 7d}],"
    " sources: [{kind: daily_allowance, units: 10, split: true}, {kind: credits}]}"
)
MORE = """
on_late_settle: charge_if_available
budgets:
  day: {usd_per_day: 100}
"""


def lived_in(world: World) -> World:
    """Two books with every kind of record. The first is account `u`."""
    comptroller, clock = world.comptroller, world.clock
    bought = world.buy("ten")  # record 1
    first = world.grant(8, member="ann", attributes={"prompt": "a dog"})  # 2
    comptroller.start(first.id)  # 3
    comptroller.extend(first.id, 2 * HOUR)  # 4
    comptroller.add_gpu_cost(first.id, gpu_seconds=500, attempt="1")  # 5
    second = world.grant(5)  # 6: two free ones and three bought ones
    comptroller.settle(second.id, gpu_seconds=41, delivered={"n": 4})  # 7
    third = world.grant(2)  # 8
    comptroller.release(third.id, reason="moderated", gpu_seconds=1)  # 9
    clock.advance(DAY)  # 10: the first expires
    comptroller.settle(first.id, gpu_seconds=90)  # 11: late, and charged again
    comptroller.set_plan("u", "own")  # 12
    comptroller.set_account("u", timezone="Asia/Tokyo")  # 13
    comptroller.set_paid_use("u", "ask", spend_cap_minor=500)  # 14
    comptroller.freeze("u", reason="chargeback")  # 15
    comptroller.unfreeze("u")  # 16
    promised = comptroller.add_credits(
        "u", units=2, reference="launch", expires_at=clock() + HOUR
    )  # 17
    clock.advance(2 * HOUR)
    comptroller.refund_lot(bought.id, reference="back")  # 18: the promotion expires, 19
    world.grant(1)  # 20
    world.buy("three", account="v")
    world.grant(9, account="v")
    assert promised.units == 2
    assert_books_sound(comptroller)
    return world


def driver_of(world: World) -> Any:
    with world.comptroller._db.engine.connect() as connection:
        return connection.connection.driver_connection


def restore(world: World, copy: bytes) -> None:
    driver_of(world).deserialize(copy)


def tamper(world: World, *statements: str) -> list[Discrepancy]:
    """Do what the database would refuse, and return what verification finds."""
    driver = driver_of(world)
    driver.execute("PRAGMA foreign_keys=OFF")
    driver.execute("PRAGMA ignore_check_constraints=ON")
    triggers = driver.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in triggers:
        driver.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        assert driver.execute(statement).rowcount, f"nothing was changed by {statement}"
    driver.commit()
    driver.execute("PRAGMA foreign_keys=ON")
    driver.execute("PRAGMA ignore_check_constraints=OFF")
    return world.comptroller.verify()


def places(found: list[Discrepancy]) -> set[tuple[int | None, int | None]]:
    return {(each.book, each.seq) for each in found}
