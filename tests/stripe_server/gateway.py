"""The way of a request through the server: key, faults, idempotency, parameters, endpoint."""

from __future__ import annotations

import threading
import traceback
from dataclasses import replace

from tests.stripe_server import balance, specification, validation
from tests.stripe_server.errors import Json, Refusal
from tests.stripe_server.exchange import Answer, Request
from tests.stripe_server.expansion import expanded
from tests.stripe_server.faults import Fault, Faults, Gate, refusal
from tests.stripe_server.idempotency import Keys
from tests.stripe_server.params import Params
from tests.stripe_server.routes import Call, routed
from tests.stripe_server.world import API_VERSION, World

_LOST = frozenset({"silence", "cut"})
# Parameters that change what customers see, and nothing that this server is about.
LOOKS = frozenset(
    """
    adaptive_pricing branding_settings consent_collection custom_fields custom_text
    customer_update excluded_payment_method_types integration_identifier locale name_collection
    origin_context payment_method_collection payment_method_options phone_number_collection
    preferred_locales redirect_on_completion return_url saved_payment_method_options shipping
    statement_descriptor statement_descriptor_suffix tax_behavior tax_id_collection use_stripe_sdk
    wallet_options
    """.split()
)


class Gateway:
    """Answers requests, one at a time as far as the state is concerned."""

    def __init__(self, world: World, lock: threading.RLock, api_key: str) -> None:
        self.world = world
        self.lock = lock
        self.api_key = api_key
        self.faults = Faults()
        self.keys = Keys(world.now)
        self.requests: list[Request] = []
        # What was served and is no object of Stripe's: the server ends with an error if any is.
        self.complaints: list[str] = []

    def answer(self, request: Request) -> Answer:
        """Answer a request, whatever it is."""
        with self.lock:
            self.requests.append(request)
            identity = f"req_{self.world.ids.letters(14)}"
        headers = {"Request-Id": identity, "Stripe-Version": API_VERSION}
        if request.idempotency_key:
            headers["Idempotency-Key"] = request.idempotency_key
        try:
            answer = self._authorised(request, identity)
        except Refusal as refused:
            answer = Answer(refused.status, refused.body, refused.headers)
        except Exception:  # noqa: BLE001 - a mistake of this server: its test fails when it ends
            self.complaints.append(traceback.format_exc())
            answer = Answer(500, {"error": {"type": "api_error", "message": "a mistake"}})
        return replace(answer, headers={**headers, **answer.headers})

    def _authorised(self, request: Request, identity: str) -> Answer:
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or not key:
            message = (
                "You did not provide an API key. You need to provide your API key in the "
                "Authorization header, using Bearer auth (e.g. 'Authorization: Bearer "
                "YOUR_SECRET_KEY')."
            )
            raise Refusal(401, "invalid_request_error", message, stored=False)
        if key != self.api_key:
            shown = key[:8] + "*" * max(0, len(key) - 12) + key[-4:]
            message = f"Invalid API Key provided: {shown}"
            raise Refusal(401, "invalid_request_error", message, stored=False)
        if request.version not in {None, API_VERSION}:
            # Stripe would answer in the shapes of that version, which this server does not know.
            message = f"Invalid Stripe API version: {request.version}"
            raise Refusal(400, "invalid_request_error", message, stored=False)
        fault = self.faults.next(request)
        early = isinstance(fault, Fault) and not fault.after
        if isinstance(fault, Fault) and early and fault.kind in _LOST:
            return Answer(0, {}, lost=fault.kind)
        if isinstance(fault, Fault) and early and fault.kind != "error":
            raise refusal(fault)
        answer = self._once(request, identity, fault)
        if isinstance(fault, Fault) and fault.after and fault.kind in _LOST:
            return replace(answer, lost=fault.kind)
        return answer

    def _once(self, request: Request, identity: str, fault: Fault | Gate | None) -> Answer:
        """Answer a request that has an idempotency key once, and then again and again."""
        key = request.idempotency_key if request.method == "POST" else None
        if key is None:
            return self._executed(request, identity, fault)
        if (known := self.keys.claim(key, request)) is not None:
            return known
        try:
            answer = self._executed(request, identity, fault)
        except Refusal as refused:
            if not refused.stored:
                self.keys.forget(key)
                raise
            answer = Answer(refused.status, refused.body, refused.headers)
        except BaseException:
            self.keys.forget(key)
            raise
        answer = replace(answer, headers={**answer.headers, "Request-Id": identity})
        self.keys.remember(key, answer)
        return answer

    def _executed(self, request: Request, identity: str, fault: Fault | Gate | None) -> Answer:
        found = routed(request.method, request.path)
        if found is None:
            message = (
                f"Unrecognized request URL ({request.method}: {request.path}). Please see "
                "https://stripe.com/docs or we can help at https://support.stripe.com/."
            )
            raise Refusal(404, "invalid_request_error", message, stored=False)
        route, ids = found
        validation.check(request.method, route.template, request.params)
        if isinstance(fault, Gate):
            fault.pass_through()
        if isinstance(fault, Fault) and fault.kind == "error" and not fault.after:
            raise refusal(fault)
        with self.lock, self.world.asked_by(identity, request.idempotency_key):
            balance.mature(self.world)
            params = Params(request.params)
            made = self._done(Call(self.world, params, ids, request.path), route.handler)
            body = expanded(self.world, made, params.texts("expand"))
        self._complain_of_ignored(request, params)
        if specification.present():
            self.complaints += specification.complaints(body)
        if isinstance(fault, Fault) and fault.kind == "error":
            raise refusal(fault)
        return Answer(200, body)

    def _complain_of_ignored(self, request: Request, params: Params) -> None:
        """Say which parameters had no effect here that have one at Stripe.

        A test that depends on one must not pass because it was quietly left out.
        """
        for name in sorted(params.tree.keys() - params.read - LOOKS):
            where = f"{request.method} {request.path}"
            self.complaints.append(f"{where}: this server does nothing about `{name}`")

    def _done(self, call: Call, handler: object) -> Json:
        """Run an endpoint. What it refuses leaves nothing behind; a declined payment does."""
        objects, events = len(self.world.objects), len(self.world.events)
        assert callable(handler)
        try:
            made: Json = handler(call)
        except Refusal as refused:
            if refused.status != 402:
                for each in list(self.world.objects)[objects:]:
                    del self.world.objects[each]
                del self.world.events[events:]
            raise
        return made
