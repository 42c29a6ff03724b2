"""Products and prices."""

from __future__ import annotations

from typing import Any

from tests.stripe_server import money
from tests.stripe_server.errors import Json, invalid, malformed, missing_parameter
from tests.stripe_server.params import Params
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World


def create_product(world: World, name: str, /, **fields: Any) -> Json:
    made = world.add(
        "product",
        fields.pop("id", None) or world.ids.make("prod"),
        **{
            "active": True,
            "default_price": None,
            "description": None,
            "images": [],
            "livemode": world.livemode,
            "marketing_features": [],
            "metadata": {},
            "name": name,
            "package_dimensions": None,
            "shippable": None,
            "statement_descriptor": None,
            "tax_code": None,
            "unit_label": None,
            "updated": world.now(),
            "url": None,
            **fields,
        },
    )
    world.emit("product.created", made)
    return made


def create_price(world: World, product: str, currency: str, unit_amount: int, **more: Any) -> Json:
    recurring = more.get("recurring")
    made = world.add(
        "price",
        f"price_1{world.ids.letters(23)}",
        **{
            "active": True,
            "billing_scheme": "per_unit",
            "currency": currency,
            "custom_unit_amount": None,
            "livemode": world.livemode,
            "lookup_key": None,
            "metadata": {},
            "nickname": None,
            "product": product,
            "recurring": None,
            "tax_behavior": "unspecified",
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "recurring" if recurring else "one_time",
            "unit_amount": unit_amount,
            "unit_amount_decimal": str(unit_amount),
            **more,
        },
    )
    world.emit("price.created", made)
    return made


@route("POST", "/v1/products")
def post_product(call: Call) -> Json:
    params, fields = call.params, _product_fields(call.params, None)
    name = params.demand("name")
    fields.pop("name", None)
    identity = params.text("id")
    if identity and identity in call.world.objects:
        raise invalid("Product already exists.", code="resource_already_exists", param="id")
    made = create_product(call.world, name, id=identity, **fields)
    data = params.branch("default_price_data")
    if data:
        price = price_of_data(call.world, data, made["id"])
        call.world.change(made, default_price=price["id"])
    return made


@route("POST", "/v1/products/{id}")
def update_product(call: Call) -> Json:
    product = call.world.get(call.id, "product")
    fields = _product_fields(call.params, product)
    if named := call.params.text("default_price"):
        fields["default_price"] = call.world.get(named, "price", param="default_price")["id"]
    if any(product.get(name) != value for name, value in fields.items()):
        fields["updated"] = call.world.now()
    return call.world.update("product.updated", product, **fields)


@route("DELETE", "/v1/products/{id}")
def delete_product(call: Call) -> Json:
    product = call.world.get(call.id, "product")
    if any(each["product"] == call.id for each in call.world.every("price")):
        message = "This product cannot be deleted because it has one or more prices."
        raise invalid(message, param="id")
    return call.world.delete(product)


def _product_fields(params: Params, before: Json | None) -> Json:
    texts = ("name", "description", "statement_descriptor", "tax_code", "unit_label", "url")
    fields: Json = {name: params.text(name) for name in texts if name in params}
    if (active := params.flag("active")) is not None:
        fields["active"] = active
    if "images" in params:
        fields["images"] = params.texts("images")
    if "metadata" in params:
        fields["metadata"] = params.metadata(before["metadata"] if before else None)
    return fields


@route("POST", "/v1/prices")
def post_price(call: Call) -> Json:
    params, world = call.params, call.world
    call.params.demand("currency")
    if named := params.text("product"):
        product = world.get(named, "product", param="product")
    elif data := params.branch("product_data"):
        product = create_product(world, data.demand("name"), metadata=data.metadata())
    else:
        raise missing_parameter("product")
    key = params.text("lookup_key")
    if key:
        _take_lookup_key(world, key, transfer=bool(params.flag("transfer_lookup_key")))
    active = params.flag("active")
    return price_of_data(
        world,
        params,
        product["id"],
        active=True if active is None else active,
        lookup_key=key,
        nickname=params.text("nickname"),
        metadata=params.metadata(),
    )


@route("POST", "/v1/prices/{price}")
def update_price(call: Call) -> Json:
    """Amounts and currencies of a price never change: only what surrounds them."""
    price, params = call.world.get(call.id, "price"), call.params
    fields: Json = {}
    for name in ("nickname", "tax_behavior"):
        if name in params:
            fields[name] = params.text(name)
    if (active := params.flag("active")) is not None:
        fields["active"] = active
    if "metadata" in params:
        fields["metadata"] = params.metadata(price["metadata"])
    if "lookup_key" in params:
        fields["lookup_key"] = params.text("lookup_key")
        if fields["lookup_key"] not in {None, price["lookup_key"]}:
            transfer = bool(params.flag("transfer_lookup_key"))
            _take_lookup_key(call.world, fields["lookup_key"], transfer=transfer)
    return call.world.update("price.updated", price, **fields)


def price_of_data(world: World, data: Params, product: str, **more: Any) -> Json:
    """Make a price of `price_data`, or of what a price is created with."""
    currency = data.demand("currency").lower()
    amount = _unit_amount(data)
    recurring = _recurring(data.branch("recurring"))
    behavior = data.text("tax_behavior") or "unspecified"
    return create_price(
        world, product, currency, amount, recurring=recurring, tax_behavior=behavior, **more
    )


def _unit_amount(data: Params) -> int:
    amount = data.integer("unit_amount")
    decimal = data.text("unit_amount_decimal")
    if amount is None and decimal is not None and decimal.isdigit():
        amount = int(decimal)
    if amount is None:
        raise missing_parameter(data.path("unit_amount"))
    if not 0 <= amount <= money.CHARGE_MAX * 10_000:
        where = data.path("unit_amount")
        raise malformed(
            "Invalid non-negative integer", code="parameter_invalid_integer", param=where
        )
    return amount


def _recurring(data: Params) -> Json | None:
    if not data:
        return None
    return {
        "interval": data.demand("interval"),
        "interval_count": data.integer("interval_count") or 1,
        "meter": None,
        "usage_type": data.text("usage_type") or "licensed",
    }


def _take_lookup_key(world: World, key: str, *, transfer: bool) -> None:
    """Make sure that no active price has this lookup key."""
    holder = next((each for each in world.every("price") if each["lookup_key"] == key), None)
    if holder is None:
        return
    if not transfer:
        message = (
            f"A price (`{holder['id']}`) already uses that lookup key; "
            "use `transfer_lookup_key` to transfer it."
        )
        raise invalid(message, code="resource_already_exists", param="lookup_key")
    world.update("price.updated", holder, lookup_key=None)
