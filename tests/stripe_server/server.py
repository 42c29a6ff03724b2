"""The server: a Stripe account over HTTP, and the hands of everybody who acts on it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any, Final, Self

from quota.testing import FakeClock
from tests.stripe_server import money, specification
from tests.stripe_server.actions import BankActions, CustomerActions, DashboardActions
from tests.stripe_server.copies import copied
from tests.stripe_server.errors import Json
from tests.stripe_server.exchange import Request
from tests.stripe_server.faults import Fault, Gate, Kind
from tests.stripe_server.gateway import Gateway
from tests.stripe_server.listener import Listener
from tests.stripe_server.webhooks import Attempt, Delivery, Endpoint, Filter, Secrets, packed
from tests.stripe_server.world import API_VERSION, Clock, Fees, Settlement, World

# The modules that register endpoints.
_ENDPOINTS: Final = (
    "account balance baskets catalogue charges collection customers discounts disputes happenings hooks invoices "
    "payments refunds resources sessions setups subscription_routes"
).split()


class StripeServer(CustomerActions, BankActions, DashboardActions):
    """A Stripe of one's own: `with StripeServer(clock=clock) as stripe: ...`.

    `fees` says what a card payment costs, in minor units, of its amount and currency.
    `settlement` maps a currency that the account does not hold to the one it holds, and the rate.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        fees: Fees = money.usual_fee,
        livemode: bool = False,
        currency: str = "usd",
        settlement: Settlement | None = None,
    ) -> None:
        self.clock: Clock = clock or FakeClock()
        for name in _ENDPOINTS:
            importlib.import_module(f"tests.stripe_server.{name}")
        lock = threading.RLock()
        world = World(
            self.clock,
            fees=fees,
            livemode=livemode,
            currency=currency,
            settlement=settlement or {},
        )
        super().__init__(world, lock)
        mode = "live" if livemode else "test"
        self.api_key = f"sk_{mode}_{world.ids.letters(24)}"
        self._secrets = Secrets(world.now, f"whsec_{world.ids.letters(32)}")
        self._gateway = Gateway(world, lock, self.api_key)
        self._listener = Listener(self._gateway.answer)
        self._endpoints: list[Endpoint] = []
        self._registered: dict[str, Endpoint] = {}

    # --- its life -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, kind: object, *raised: object) -> None:
        self._gateway.faults.heal()
        self._listener.close()
        if kind is not None:
            return
        if specification.present():
            self.complaints.extend(specification.complaints(self.world.events))
        if self.complaints:
            raise AssertionError("served what Stripe does not: " + "; ".join(self.complaints[:10]))

    @property
    def url(self) -> str:
        return self._listener.url

    @property
    def account_id(self) -> str:
        return self.world.account_id

    @property
    def complaints(self) -> list[str]:
        """Where what was served differs from Stripe's own description."""
        return self._gateway.complaints

    # --- what was asked -----------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """Every request so far, refused ones too."""
        with self._lock:
            return list(self._gateway.requests)

    def requested(self, method: str, path: str) -> list[Request]:
        """The requests of a method for exactly this path."""
        return [each for each in self.requests if (each.method, each.path) == (method, path)]

    def forget_requests(self) -> None:
        with self._lock:
            self._gateway.requests.clear()

    # --- what there is ------------------------------------------------------------------------

    def get(self, identity: str) -> Json:
        """An object as it is now, by its id, without a request."""
        with self._lock:
            return copied(self.world.objects[identity])

    def every(self, kind: str) -> list[Json]:
        """All objects of a kind, the earliest first."""
        with self._lock:
            return copied(self.world.every(kind)[::-1])

    # --- what goes wrong ----------------------------------------------------------------------

    def go_wrong(
        self,
        kind: Kind,
        *,
        after: bool = False,
        times: int = 1,
        method: str | None = None,
        path: str | None = None,
    ) -> None:
        """Let the next requests fail; `after` lets their effect stand. See `Fault`."""
        self._gateway.faults.order(Fault(kind, after), times, method, path)

    def hold(self, *, method: str | None = None, path: str | None = None) -> Gate:
        """Hold the next request in the middle of its work until the gate is released."""
        gate = Gate()
        self._gateway.faults.order(gate, 1, method, path)
        return gate

    def heal(self) -> None:
        """Let nothing more go wrong."""
        self._gateway.faults.heal()

    # --- webhooks -----------------------------------------------------------------------------

    @property
    def webhook_secret(self) -> str:
        """The secret that signs deliveries; the latest, after a rotation."""
        return self._secrets.current

    def roll_secret(self) -> str:
        """Rotate the secret and return the new one: for a day both sign."""
        with self._lock:
            self._secrets.roll(f"whsec_{self.world.ids.letters(32)}")
            return self._secrets.current

    @property
    def events(self) -> list[Json]:
        """Everything that happened, the earliest first."""
        with self._lock:
            return copied(self.world.events)

    def event_types(self, since: int = 0) -> list[str]:
        """The types of the events after the first so many."""
        return [each["type"] for each in self.events[since:]]

    def deliveries(
        self,
        *types: str,
        since: int = 0,
        thin: bool = False,
        copies: int = 1,
        shuffle: int | None = None,
        older_than_seconds: int = 0,
        drop: Callable[[Json], bool] = lambda event: False,
    ) -> list[Delivery]:
        """The signed webhook requests for events so far: pairs of payload and header.

        `types` may name groups (`charge.*`); `since` leaves out the first so many events; `copies`
        brings each so often; `shuffle` is the seed of another order; `older_than_seconds` holds
        back what is younger by the clock; `drop` says what never comes; `thin` sends notifications.
        """
        chosen = Filter(types or ("*",), since, thin, copies, shuffle, older_than_seconds, drop)
        with self._lock:
            events = chosen.chosen(self.world.events, self.world.now())
            return [packed(each, self._secrets, thin=thin) for each in events]

    def deliver_to(self, url: str, *types: str, thin: bool = False) -> Endpoint:
        """Register an endpoint for what happens from now on; `deliver` sends what is due."""
        with self._lock:
            endpoint = Endpoint(self.world, self._secrets, url, Filter(types or ("*",), thin=thin))
            self._endpoints.append(endpoint)
        return endpoint

    def deliver(self) -> list[Attempt]:
        """Send what is due by the clock to every endpoint, once each; retries wait for the clock.

        The endpoints are those of `deliver_to`, and those that were registered over the API.
        """
        with self._lock:
            hooks = [each for each in self.world.every("webhook_endpoint")[::-1] if _is_on(each)]
            endpoints = [*self._endpoints, *map(self._endpoint_of, hooks)]
        return [attempt for each in endpoints for attempt in each.deliver()]

    def _endpoint_of(self, hook: Json) -> Endpoint:
        """The endpoint of a registration: made once, for it knows what was delivered."""
        if hook["id"] not in self._registered:
            note = self.world.note(hook["id"])
            chosen = Filter(tuple(hook["enabled_events"]), since=note["since"])
            secrets = Secrets(self.world.now, note["secret"])
            self._registered[hook["id"]] = Endpoint(self.world, secrets, hook["url"], chosen)
        return self._registered[hook["id"]]

    def client(self, **options: Any) -> Any:
        """A `stripe.StripeClient` of this server, which does not try again by itself."""
        import stripe

        settings = {"max_network_retries": 0, "stripe_version": API_VERSION, **options}
        return stripe.StripeClient(self.api_key, base_addresses={"api": self.url}, **settings)


def _is_on(hook: Json) -> bool:
    return bool(hook["status"] == "enabled")
