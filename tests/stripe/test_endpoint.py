"""A whole evening: Stripe delivers over HTTP to a backend that is sometimes down, and tries again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse

from quota import Comptroller, ComptrollerError, InvalidRequest, InvalidSignature
from tests.stripe.shop import opened

ROUNDS = 12


def endpoint(comptroller: Comptroller, down: threading.Event) -> FastAPI:
    """The endpoint of docs/how-to/sell-packs-with-stripe.md, in a process that may be down."""
    app = FastAPI()

    @app.post("/stripe/events")
    async def stripe_events(request: Request) -> PlainTextResponse:
        if down.is_set():
            return PlainTextResponse("", 502)
        payload = await request.body()
        signature = request.headers.get("stripe-signature", "")
        try:
            outcome = await run_in_threadpool(comptroller.handle_stripe_event, payload, signature)
        except (InvalidSignature, InvalidRequest) as error:
            return PlainTextResponse(str(error), 400)
        except ComptrollerError as error:
            return PlainTextResponse(str(error), 500)
        return PlainTextResponse(outcome.effect)

    return app


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve an application on loopback."""
    config = uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    sockets = [config.bind_socket()]
    sockets[0].listen()  # who comes before the server is up waits in its queue
    thread = threading.Thread(target=server.run, args=(sockets,))
    thread.start()
    try:
        yield "http://{}:{}".format(*sockets[0].getsockname())
    finally:
        server.should_exit = True
        thread.join()
        sockets[0].close()


def test_what_stripe_delivers_again_after_an_outage_ends_as_if_there_had_been_none():
    down = threading.Event()
    with opened() as shop, served(endpoint(shop.comptroller, down)) as url:
        there = shop.stripe.deliver_to(f"{url}/stripe/events")
        checkout = shop.checkout()
        shop.stripe.pay(checkout.session_id)
        down.set()
        assert {each.status for each in shop.stripe.deliver()} == {502}
        assert shop.units() == 0
        shop.stripe.refund(shop.stripe.every("payment_intent")[-1]["id"], 100)
        down.clear()
        # What is new comes at once, what was turned away minutes later: the refund before its payment.
        assert {each.status for each in shop.stripe.deliver()} == {200}
        assert shop.comptroller.purchase(checkout.purchase_id).status == "pending"
        for _ in range(ROUNDS):
            shop.clock.advance(minutes=10)
            assert {each.status for each in shop.stripe.deliver()} <= {200}
        assert there.due() == []
        assert shop.units() == 8
        assert shop.comptroller.purchase(checkout.purchase_id).refunded_minor == 100
        assert shop.comptroller.stripe_events("failed") == []
