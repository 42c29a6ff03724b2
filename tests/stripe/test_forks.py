"""A process that forks after asking Stripe shares no connection to it with its children."""

from __future__ import annotations

import subprocess
import sys

from tests.processes.workers import PROJECT
from tests.stripe_server import StripeServer

PROGRAM = """
import os, sys
from policies.policy_set import PolicySet
from quota import Comptroller, StripeSettings
from tests.stripe.shop import POLICIES

key, url, ours, childs = sys.argv[1:]
settings = StripeSettings(key, [], url)
with Comptroller.open(PolicySet.parse(POLICIES), "sqlite://", stripe=settings) as comptroller:
    def ask(customer):
        for _ in range(50):
            page = comptroller._gateway().page("payment_intent", {"customer": customer}, None)
            assert {each["customer"] for each in page.items} == {customer}, "somebody else's answer"

    ask(ours)
    child = os.fork()
    try:
        ask(childs if child == 0 else ours)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        if child:
            os.waitpid(child, 0)
        os._exit(1)
    if child == 0:
        os._exit(0)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_parent_and_child_each_get_their_own_answers():
    with StripeServer() as stripe:
        client = stripe.client()
        customers = [str(client.v1.customers.create({}).id) for _ in range(2)]
        for customer in customers:
            client.v1.payment_intents.create(
                {"amount": 400, "currency": "usd", "customer": customer}
            )
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, stripe.api_key, stripe.url, *customers],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
