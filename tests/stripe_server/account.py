"""The account itself, and the billing portal that its customers manage themselves in."""

from __future__ import annotations

from tests.stripe_server.errors import Json
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World


@route("GET", "/v1/account")
def get_account(call: Call) -> Json:
    """Who the key belongs to: what a deployment checks before it trusts its settings."""
    world = call.world
    return {
        "id": world.account_id,
        "object": "account",
        "business_profile": None,
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "controller": {"type": "account"},
        "country": "US",
        "created": world.opened,
        "default_currency": world.currency,
        "details_submitted": True,
        "email": "owner@example.com",
        "external_accounts": {
            "object": "list",
            "data": [],
            "has_more": False,
            "url": f"/v1/accounts/{world.account_id}/external_accounts",
        },
        "metadata": {},
        "payouts_enabled": True,
        "settings": None,
        "tos_acceptance": {"date": None, "ip": None, "user_agent": None},
        "type": "standard",
    }


@route("GET", "/v1/accounts/{account}")
def get_account_by_id(call: Call) -> Json:
    if call.id != call.world.account_id:
        call.world.get(call.id, "account")
    return get_account(call)


@route("POST", "/v1/billing_portal/sessions")
def post_portal_session(call: Call) -> Json:
    params, world = call.params, call.world
    customer = world.get(params.demand("customer"), "customer", param="customer")
    return world.add(
        "billing_portal.session",
        f"bps_1{world.ids.letters(23)}",
        configuration=params.text("configuration") or _configuration(world),
        customer=customer["id"],
        customer_account=None,
        flow=None,
        livemode=world.livemode,
        locale=params.text("locale"),
        on_behalf_of=None,
        return_url=params.text("return_url"),
        url=f"https://billing.stripe.com/p/session/{world.ids.letters(40)}",
    )


def _configuration(world: World) -> str:
    """The default configuration, as the dashboard made it."""
    note = world.note(world.account_id)
    return str(note.setdefault("portal", f"bpc_1{world.ids.letters(23)}"))
