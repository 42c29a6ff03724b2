"""Events as they are read: in lists, one by one, and as the thin notifications of API v2."""

from __future__ import annotations

import fnmatch
from datetime import UTC, datetime
from typing import Final

from tests.stripe_server.errors import Json, no_such
from tests.stripe_server.lists import dated, page
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World

KEPT_SECONDS: Final = 30 * 86_400
_PATHS: Final = {
    "balance_transaction": "/v1/balance_transactions",
    "charge": "/v1/charges",
    "checkout.session": "/v1/checkout/sessions",
    "coupon": "/v1/coupons",
    "customer": "/v1/customers",
    "dispute": "/v1/disputes",
    "invoice": "/v1/invoices",
    "invoice_payment": "/v1/invoice_payments",
    "payment_intent": "/v1/payment_intents",
    "payment_method": "/v1/payment_methods",
    "payout": "/v1/payouts",
    "price": "/v1/prices",
    "product": "/v1/products",
    "promotion_code": "/v1/promotion_codes",
    "refund": "/v1/refunds",
    "setup_intent": "/v1/setup_intents",
    "subscription": "/v1/subscriptions",
}


def kept(world: World) -> list[Json]:
    """The events of the last 30 days, the latest first: older ones are gone."""
    since = world.now() - KEPT_SECONDS
    return [each for each in reversed(world.events) if each["created"] > since]


def matches(name: str, wanted: str) -> bool:
    """Whether an event's type is the one that is wanted, or of its group: `charge.*`."""
    return fnmatch.fnmatchcase(name, wanted)


def notification(event: Json) -> Json:
    """What a thin delivery says of an event: what it is and about what, not how it is now."""
    subject = event["data"]["object"]
    created = datetime.fromtimestamp(event["created"], UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return {
        "id": event["id"],
        "object": "v2.core.event",
        "type": f"v1.{event['type']}",
        "created": created,
        "livemode": event["livemode"],
        "context": None,
        "reason": {"type": "request", "request": event["request"]}
        if event["request"]["id"]
        else None,
        "related_object": {
            "id": subject["id"],
            "type": subject["object"],
            "url": f"{_PATHS[subject['object']]}/{subject['id']}",
        },
    }


@route("GET", "/v1/events")
def list_events(call: Call) -> Json:
    params, items = call.params, dated(kept(call.world), call.params, "created")
    if wanted := params.text("type"):
        items = [each for each in items if matches(each["type"], wanted)]
    if names := params.texts("types"):
        items = [each for each in items if any(matches(each["type"], name) for name in names)]
    if (success := params.flag("delivery_success")) is not None:
        items = [each for each in items if (each["pending_webhooks"] == 0) == success]
    return page(items, params, call.path)


@route("GET", "/v1/events/{id}")
def get_event(call: Call) -> Json:
    return _event(call.world, call.id)


@route("GET", "/v2/core/events/{id}")
def get_notification(call: Call) -> Json:
    return notification(_event(call.world, call.id))


def _event(world: World, identity: str) -> Json:
    for each in kept(world):
        if each["id"] == identity:
            return each
    raise no_such("event", identity)
