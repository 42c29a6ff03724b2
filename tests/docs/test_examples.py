"""The video app of docs/examples runs for real, and leaves sound books."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from policies import PolicySet
from quota import AccountBusy, Comptroller, StripeSettings
from quota.testing import FakeClock, assert_books_sound
from tests.databases import KINDS, a_database, locked
from tests.hosts.host import on_driver
from tests.stripe_server import StripeServer
from video_app import app as video_app
from video_app import product as product_module
from video_app.product import POLICIES, Job, Product, opened
from video_app.worker import Beat, Worker

GPU_SECONDS = 40


@dataclass
class Shop:
    """The video app with a Stripe of the tests' own, on a clock that is set."""

    client: TestClient
    product: Product
    stripe: StripeServer
    clock: FakeClock
    rendered: list[int] = field(default_factory=list)

    @property
    def comptroller(self) -> Comptroller:
        return self.product.comptroller

    def worker(self, render: Any = None) -> Worker:
        nanoseconds = lambda: int(self.clock().timestamp()) * 10**9  # noqa: E731
        return Worker(self.product, render or self.render, nanoseconds)

    def render(self, job: Job, beat: Beat) -> None:
        self.clock.advance(seconds=GPU_SECONDS)
        beat()
        self.rendered.append(job.id)

    def ask(self, key: str, seconds: int = 20, user: str = "ann", **more: Any) -> Any:
        body = {"prompt": "a heron", "seconds": seconds, **more}
        headers = {"X-User": user, "Idempotency-Key": key}
        return self.client.post("/videos", json=body, headers=headers)

    def show(self, video: int, user: str = "ann") -> Any:
        return self.client.get(f"/videos/{video}", headers={"X-User": user})

    def cancel(self, video: int, user: str = "ann") -> Any:
        return self.client.delete(f"/videos/{video}", headers={"X-User": user})

    def left(self, user: str = "ann") -> dict[str, int]:
        answer = self.client.get("/allowance", headers={"X-User": user}).json()
        (free,) = answer["free"]
        return {"free": free["remaining"], "credits": answer["credits"]}

    def ending(self, key: str, user: str = "ann") -> Any:
        grant = self.comptroller.find(user, key=key)
        assert grant is not None
        return self.comptroller.explain(grant.id).ending

    def hear(self) -> list[int]:
        """Bring what Stripe has sent since to the webhook: each event twice, out of order."""
        sent = list(self.stripe.deliveries(copies=2, shuffle=1))
        return [
            self.client.post(
                "/stripe/webhook", content=payload, headers={"Stripe-Signature": header}
            ).status_code
            for payload, header in sent
        ]


@contextmanager
def a_shop(database: str) -> Iterator[Shop]:
    clock = FakeClock()
    with StripeServer(clock) as stripe:
        settings = StripeSettings(stripe.api_key, [stripe.webhook_secret], stripe.url)
        app = video_app.create_app(partial(opened, database, clock, settings))
        with TestClient(app, raise_server_exceptions=False) as client:
            yield Shop(client, app.state.product, stripe, clock)
            assert_books_sound(app.state.product.comptroller)


@pytest.fixture(params=KINDS)
def shop(request, tmp_path, monkeypatch):
    monkeypatch.delenv("COMPTROLLER_REDIS", raising=False)
    with a_database(request.param, tmp_path) as url:
        driven = url if url.startswith("sqlite") else on_driver(url, "psycopg")
        with a_shop(driven) as made:
            yield made


def test_there_is_nothing_to_remark_on_the_policy_file_of_the_video_app():
    checked = PolicySet.check(POLICIES)
    assert (checked.problems, checked.notes) == ((), ())


def test_a_video_is_granted_made_and_its_measured_time_is_booked(shop):
    asked = shop.ask("1")
    assert (asked.status_code, asked.json()["units"]) == (202, {"daily_allowance": 4})
    assert shop.show(asked.json()["id"]).json()["state"] == "queued"
    assert shop.worker().work()
    assert shop.show(asked.json()["id"]).json()["state"] == "done"
    assert shop.left() == {"free": 2, "credits": 0}
    ending = shop.ending("1")
    assert (ending.status, ending.gpu_reported) == ("settled", True)
    assert ending.gpu_cost_micro_usd == 27_778  # 40 s at $2.50 an hour, rounded up
    assert not shop.worker().work()


def test_a_key_brings_the_same_video_again_and_never_another(shop):
    first = shop.ask("1").json()
    assert shop.ask("1").json() == first
    assert shop.ask("1", seconds=5).status_code == 409
    assert shop.ask("1", prompt="a crane").status_code == 409
    assert shop.left() == {"free": 2, "credits": 0}
    shop.worker().work()
    assert not shop.worker().work()


def test_where_the_job_cannot_be_written_nothing_is_granted(shop):
    with shop.product.engine.begin() as connection:
        connection.execute(text("ALTER TABLE job RENAME TO job_elsewhere"))
    assert shop.ask("1").status_code == 500
    assert shop.comptroller.find("ann", key="1") is None
    assert shop.left() == {"free": 6, "credits": 0}


def test_a_denial_says_when_and_what_else_and_queues_nothing(shop):
    shop.ask("1")
    denied = shop.ask("2")
    assert (denied.status_code, denied.json()["reason"]) == (402, "allowance_exhausted")
    offers = {offer["kind"]: offer for offer in denied.json()["offers"]}
    assert offers["buy"]["pack"] == "ten"
    assert offers["buy"]["price"] == [400, "usd"]
    assert offers["smaller"]["attributes"] == {"seconds": 10}
    assert int(denied.headers["Retry-After"]) == 2 * 60 * 60  # then the queued one's hold runs out
    assert shop.ask("3", seconds=11).status_code == 422
    assert shop.worker().work()
    assert not shop.worker().work()


def test_who_has_too_many_open_jobs_waits(shop):
    assert [shop.ask(f"{n}", seconds=5).status_code for n in range(4)] == [202, 202, 202, 429]


def test_a_paid_pack_brings_a_lot_which_pays_with_consent(shop):
    offered = shop.client.post("/packs/ten", headers={"X-User": "ann"}).json()
    assert offered["url"].startswith("https://checkout.stripe.com/")
    assert shop.left() == {"free": 6, "credits": 0}
    (session,) = shop.stripe.every("checkout.session")
    shop.stripe.pay(session["id"])
    assert set(shop.hear()) == {200}
    purchase = shop.comptroller.purchase(offered["purchase"])
    (lot,) = shop.comptroller.balance("ann").lots
    assert (purchase.status, lot.id, lot.price_minor) == ("paid", purchase.lot_id, 400)
    assert shop.left() == {"free": 6, "credits": 10}

    shop.ask("1")
    unasked = shop.ask("2")
    assert (unasked.status_code, unasked.json()["reason"]) == (402, "consent_needed")
    paid = shop.ask("2", use_credits=True)
    assert (paid.status_code, paid.json()["units"]) == (202, {"credits": 4})
    assert shop.left() == {"free": 2, "credits": 6}


def test_a_webhook_that_stripe_did_not_sign_gives_nothing(shop):
    shop.client.post("/packs/ten", headers={"X-User": "ann"})
    (session,) = shop.stripe.every("checkout.session")
    shop.stripe.pay(session["id"])
    (payload, header), *_ = shop.stripe.deliveries()
    forged = {"Stripe-Signature": header}
    answer = shop.client.post("/stripe/webhook", content=payload + b" ", headers=forged)
    assert answer.status_code == 400
    assert shop.client.post("/stripe/webhook", content=payload).status_code == 400
    assert shop.left() == {"free": 6, "credits": 0}


def test_there_is_no_pack_but_those_of_the_policy_file(shop):
    answer = shop.client.post("/packs/eleven", headers={"X-User": "ann"})
    assert answer.status_code == 422
    assert shop.stripe.every("checkout.session") == []


def test_a_buyer_is_not_told_which_setting_is_missing_but_the_log_is(tmp_path, monkeypatch, caplog):
    for name in ("STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRETS", "STRIPE_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    app = video_app.create_app(partial(opened, f"sqlite:///{tmp_path / 'app.db'}", FakeClock()))
    with TestClient(app) as client:
        for path in ("/packs/ten", "/stripe/webhook"):
            answer = client.post(path, headers={"X-User": "ann"})
            assert (answer.status_code, answer.json()) == (500, {"error": "this is our fault"})
    assert caplog.text.count("set STRIPE_API_KEY") == 2


def test_a_job_that_is_cancelled_in_the_queue_gives_everything_back(shop):
    video = shop.ask("1").json()["id"]
    assert shop.cancel(video, user="bob").status_code == 404
    assert shop.show(video, user="bob").status_code == 404
    assert shop.cancel(video).json() == {"id": video, "units_charged": 0}
    assert shop.cancel(video).status_code == 409
    assert shop.left() == {"free": 6, "credits": 0}
    assert shop.ending("1").gpu_cost_micro_usd == 0
    assert not shop.worker().work()


def test_a_job_that_is_cancelled_at_work_stops_and_is_charged(shop):
    video = shop.ask("1").json()["id"]

    def cancelled_meanwhile(job: Job, beat: Beat) -> None:
        beat()
        assert shop.cancel(job.id).json()["units_charged"] == 4
        shop.render(job, beat)

    assert shop.worker(cancelled_meanwhile).work()
    assert shop.rendered == []  # its next heartbeat stopped it
    assert shop.show(video).json()["state"] == "cancelled"
    assert shop.left() == {"free": 2, "credits": 0}
    assert (shop.ending("1").status, shop.ending("1").gpu_reported) == ("released", False)


def test_a_render_that_fails_gives_its_units_back_and_books_its_time(shop):
    video = shop.ask("1").json()["id"]

    def fails(job: Job, beat: Beat) -> None:
        shop.render(job, beat)
        raise RuntimeError("out of memory")

    assert shop.worker(fails).work()
    assert shop.show(video).json()["state"] == "failed"
    assert shop.left() == {"free": 6, "credits": 0}
    assert shop.ending("1").gpu_cost_micro_usd == 27_778


def test_the_units_of_a_worker_that_dies_come_back_by_themselves(shop):
    video = shop.ask("1").json()["id"]

    def dies(job: Job, beat: Beat) -> None:
        beat()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.worker(dies).work()
    shop.clock.advance(minutes=5, seconds=-1)
    assert shop.show(video).json()["state"] == "running"
    assert shop.left() == {"free": 2, "credits": 0}
    shop.clock.advance(seconds=1)
    assert shop.show(video).json()["state"] == "expired"
    assert shop.left() == {"free": 6, "credits": 0}
    assert not shop.worker().work()


def test_work_that_ends_too_late_is_not_delivered_and_its_time_is_booked(shop):
    video = shop.ask("1").json()["id"]

    def hangs(job: Job, beat: Beat) -> None:
        shop.clock.advance(minutes=6)

    assert shop.worker(hangs).work()
    assert shop.show(video).json()["state"] == "expired"
    assert shop.left() == {"free": 6, "credits": 0}
    assert shop.ending("1").gpu_cost_micro_usd == 250_000  # 6 minutes, not the estimate


def test_a_job_that_has_waited_for_too_long_is_not_worked_on(shop):
    video = shop.ask("1").json()["id"]
    shop.clock.advance(hours=2)
    assert shop.worker(lambda job, _: shop.rendered.append(job.id)).work()
    assert shop.rendered == []
    assert shop.show(video).json()["state"] == "expired"
    assert shop.left() == {"free": 6, "credits": 0}


def test_a_heartbeat_that_does_not_get_through_costs_no_work(tmp_path, monkeypatch):
    monkeypatch.setattr(product_module, "PRAGMAS", ("journal_mode=WAL", "busy_timeout=20"))
    database = f"sqlite:///{tmp_path / 'app.db'}"
    with a_shop(database) as shop:
        video = shop.ask("1").json()["id"]

        def beats_while_somebody_writes(job: Job, beat: Beat) -> None:
            with locked(database):
                beat()
            shop.render(job, beat)

        assert shop.worker(beats_while_somebody_writes).work()
        assert shop.show(video).json()["state"] == "done"


def test_a_transaction_that_met_somebody_else_begins_again(tmp_path):
    tries: list[int] = []
    with a_shop(f"sqlite:///{tmp_path / 'app.db'}") as shop:

        def reads_first(session: Session) -> bool:
            tries.append(len(tries))
            if len(tries) == 1:
                session.connection().exec_driver_sql("BEGIN")
                session.scalars(select(Job)).all()
                shop.ask("1", 5)  # somebody else writes after it has read
            grant = shop.comptroller.find("ann", key="1")
            assert grant is not None
            return shop.comptroller.release(
                grant.id, reason="failed", gpu_seconds=0, session=session
            ).by_this_call

        assert shop.product.in_transaction(reads_first)
        assert tries == [0, 1]
        assert shop.left() == {"free": 6, "credits": 0}


def test_a_transaction_that_never_gets_through_says_so_in_the_end(tmp_path):
    tries: list[Session] = []

    def busy(session: Session) -> None:
        tries.append(session)
        raise AccountBusy("locked")

    with a_shop(f"sqlite:///{tmp_path / 'app.db'}") as shop, pytest.raises(AccountBusy):
        shop.product.in_transaction(busy)
    assert len(tries) == product_module.ATTEMPTS


def test_workers_side_by_side_take_each_job_once(shop):
    asked = [shop.ask("1", 5, user=f"u{n}").json()["id"] for n in range(12)]

    def only_note(job: Job, beat: Beat) -> None:
        shop.rendered.append(job.id)

    def work_until_none_is_left() -> None:
        while shop.worker(only_note).work():
            pass

    workers = [threading.Thread(target=work_until_none_is_left) for _ in range(3)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert sorted(shop.rendered) == asked
