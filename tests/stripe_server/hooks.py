"""Webhook endpoints as the API keeps them; what is sent to them is the business of `webhooks`."""

from __future__ import annotations

from tests.stripe_server.errors import Json, missing_parameter
from tests.stripe_server.lists import page
from tests.stripe_server.params import Params
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import API_VERSION

_ONE = "/v1/webhook_endpoints/{webhook_endpoint}"


@route("POST", "/v1/webhook_endpoints")
def post_hook(call: Call) -> Json:
    """Register an endpoint. This answer alone tells its secret."""
    params, world = call.params, call.world
    events = params.texts("enabled_events")
    if not events:
        raise missing_parameter("enabled_events")
    made = world.add(
        "webhook_endpoint",
        f"we_1{world.ids.letters(23)}",
        api_version=params.text("api_version") or API_VERSION,
        application=None,
        description=params.text("description"),
        enabled_events=events,
        livemode=world.livemode,
        metadata=params.metadata(),
        status="enabled",
        url=params.demand("url"),
    )
    secret = f"whsec_{world.ids.letters(32)}"
    world.note(made["id"]).update(secret=secret, since=len(world.events))
    return {**made, "secret": secret}


@route("POST", _ONE)
def update_hook(call: Call) -> Json:
    made = call.world.get(call.id, "webhook_endpoint")
    call.world.change(made, **_changes(call.params, made))
    return made


def _changes(params: Params, made: Json) -> Json:
    fields: Json = {name: params.text(name) for name in ("description", "url") if name in params}
    if events := params.texts("enabled_events"):
        fields["enabled_events"] = events
    if (disabled := params.flag("disabled")) is not None:
        fields["status"] = "disabled" if disabled else "enabled"
    if "metadata" in params:
        fields["metadata"] = params.metadata(made["metadata"])
    return fields


@route("DELETE", _ONE)
def delete_hook(call: Call) -> Json:
    made = call.world.get(call.id, "webhook_endpoint")
    del call.world.objects[made["id"]]
    return {"id": made["id"], "object": "webhook_endpoint", "deleted": True}


@route("GET", _ONE)
def get_hook(call: Call) -> Json:
    return call.world.get(call.id, "webhook_endpoint")


@route("GET", "/v1/webhook_endpoints")
def list_hooks(call: Call) -> Json:
    return page(call.world.every("webhook_endpoint"), call.params, call.path)
