"""Crash at SQL statement n of a webhook: `python -m tests.processes.webhooks COURSE HOW KIND FOLDER`.

An event is stored in one transaction and worked off in another. For each n a forked child hears the event and, as
statement n begins, dies (`killed`), or loses its connections to the server and goes on (`cut`). Then the event comes
again as Stripe sends it again, or a sweep works it off before it does: either must end in the books that it has where
nothing goes wrong; these take turns. One line of JSON for each n.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from billing.stripe.signature import sign
from policies.errors import ComptrollerError
from policies.policy_set import PolicySet
from quota import Comptroller, StripeSettings
from quota.offers import pack_offer, plan_offer
from quota.testing import FakeClock
from tests.processes.crashes import (
    CRASHED,
    STATEMENTS_MAX,
    a_copy,
    in_child,
    plainly,
    void,
    watch,
)
from tests.processes.operations import State
from tests.processes.operations import state as state_of_books
from tests.world import POLICIES, START, discrepancies, raw

SECRET: Final = "whsec_of_the_tests"
SETTINGS: Final = StripeSettings("sk_test_of_the_tests", [SECRET])
AT: Final = int(START.timestamp())
MONTH: Final = 28 * 86_400
WAYS: Final = ("sent again", "swept")
SOLD: Final = {"ann": "ten", "ben": "ten", "kim": "pro"}
"""What is offered to whom. Only ben has paid before the event comes."""


def event(identity: str, about: dict[str, Any]) -> bytes:
    """An event that shows an object; its name says nothing that is needed."""
    told = {"id": identity, "object": "event", "type": f"{about['object']}.x", "created": AT}
    told |= {"livemode": False, "api_version": None, "data": {"object": about}}
    return json.dumps(told).encode()


def session(comptroller: Comptroller, account: str) -> bytes:
    (sale,) = comptroller.purchases(account)
    is_plan = sale.kind == "plan"
    about: dict[str, Any] = {
        "id": f"cs_{account}",
        "object": "checkout.session",
        "mode": "subscription" if is_plan else "payment",
        "status": "complete",
        "payment_status": "paid",
        "amount_subtotal": sale.price_minor,
        "amount_total": sale.price_minor,
        "currency": sale.currency,
        "customer": f"cus_{account}",
        "metadata": {"comptroller_purchase": sale.id},
    }
    about["subscription" if is_plan else "payment_intent"] = f"pi_{account}"
    return event(f"evt_{account}", about)


def refund(_: Comptroller) -> bytes:
    about = {"id": "re_1", "object": "refund", "status": "succeeded", "amount": 150}
    return event("evt_refund", {**about, "currency": "usd", "payment_intent": "pi_ben"})


def invoice(comptroller: Comptroller) -> bytes:
    (sale,) = comptroller.purchases("kim")
    metadata = {"comptroller_purchase": sale.id}
    price = {"price_details": {"price": "price_1"}}
    line = {"amount": 2000, "period": {"start": AT, "end": AT + MONTH}, "pricing": price}
    about = {
        "id": "in_1",
        "object": "invoice",
        "status": "paid",
        "amount_paid": 2000,
        "total": 2000,
        "total_excluding_tax": 2000,
        "currency": "usd",
        "lines": {"data": [line]},
        "parent": {"subscription_details": {"subscription": "pi_kim", "metadata": metadata}},
    }
    return event("evt_invoice", about)


COURSES: Final[dict[str, Callable[[Comptroller], bytes]]] = {
    "paid": lambda comptroller: session(comptroller, "ann"),
    "refunded": refund,
    "invoiced": invoice,
}


def opened(database: str) -> Comptroller:
    return Comptroller.open(
        PolicySet.parse(POLICIES), database, clock=FakeClock(START), stripe=SETTINGS
    )


def prepare(database: str) -> None:
    """Make books with what is offered, of which one pack is paid and used in part."""
    with opened(database) as comptroller:
        policies = comptroller.policies
        for account, item in SOLD.items():
            offer = (plan_offer if item in policies.plans else pack_offer)(policies, item, None)
            comptroller._offer(account, offer)
            comptroller._offered(offer.id, f"cs_{account}")
        hear(comptroller, session(comptroller, "ben"))
        comptroller.set_plan("ben", "paid")
        grant = comptroller.admit(account="ben", operation="clip", attributes={"n": 7}, key="k")
        comptroller.settle(grant.id, gpu_seconds=70)


def hear(comptroller: Comptroller, payload: bytes) -> None:
    """What the endpoint does with an event, as Stripe sends it now."""
    outcome = comptroller.handle_stripe_event(payload, sign(payload, SECRET, AT))
    assert outcome.status == "done", outcome


def state(comptroller: Comptroller) -> State:
    """All that the books say, what is known of payments, and what the inbox holds."""
    with comptroller._db.reading() as db:
        inbox = raw(db, "SELECT id, status, effect, payment FROM comptroller_stripe_event")
        facts = raw(db, "SELECT payment, facts FROM comptroller_stripe_fact")
        sold = raw(db, "SELECT id, payment, lot_no, revision, state FROM comptroller_purchase")
        plans = raw(db, "SELECT id, revision, state, spans FROM comptroller_plan_invoice")
    tables = [sorted(map(list, rows)) for rows in (inbox, facts, sold, plans)]
    return [*state_of_books(comptroller), *tables]


def hear_and_fail(database: str, course: str, how: str, at: int) -> None:
    """Hear the event; as its statement number `at` begins, die or lose the server."""
    comptroller, seen = opened(database), 0
    payload = COURSES[course](comptroller)

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == at and how == "killed":
            os._exit(CRASHED)
        if seen == at:
            cut_all(database)

    watch(comptroller, count)
    try:
        hear(comptroller, payload)
    except ComptrollerError as error:
        if not error.retryable or how != "cut":
            raise
    os._exit(CRASHED if seen >= at else 0)


CUT: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def cut_all(database: str) -> None:
    """Have the server end all connections to this database."""
    with psycopg.connect(database, autocommit=True) as outside:
        outside.pgconn.exec_(CUT.encode())  # not by a cursor: those are watched


def recover(database: str, course: str, way: str, after: State) -> dict[str, Any]:
    """Work the event off: as Stripe sends it again, or by a sweep first. Tells how that has ended."""
    with opened(database) as comptroller:
        payload = COURSES[course](comptroller)
        kept = len(comptroller.stripe_events("received"))
        swept = True
        if way == "swept":
            comptroller.sweep()
            swept = not kept or plainly(state(comptroller)) == after
        hear(comptroller, payload)
        wrong = [str(each) for each in discrepancies(comptroller)]
        same = plainly(state(comptroller)) == after
    return {"kept": kept, "swept": swept, "same": same, "wrong": wrong}


def main(course: str, how: str, kind: str, folder: str) -> int:
    told = Path(folder) / "told"

    def tell(content: Callable[[], Any]) -> Any:
        assert in_child(lambda: void(told.write_text(json.dumps(plainly(content()))))) == 0
        return json.loads(told.read_text())

    def whole(url: str) -> State:
        with opened(url) as comptroller:
            hear(comptroller, COURSES[course](comptroller))
            return state(comptroller)

    with a_copy(kind, Path(folder), prepare) as url:
        after = tell(lambda: whole(url))
    for n in range(1, STATEMENTS_MAX):
        way = WAYS[n % len(WAYS)]
        with a_copy(kind, Path(folder), prepare) as url:
            ended = in_child(partial(hear_and_fail, url, course, how, n))
            if ended == 0:
                return 0
            assert ended == CRASHED, ended
            found = tell(partial(recover, url, course, way, after))
        print(json.dumps({"n": n, "way": way, **found}), flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
