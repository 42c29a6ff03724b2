"""What a Checkout Session sells: its lines, its discounts and its sums."""

from __future__ import annotations

from tests.stripe_server import catalogue, discounts, money
from tests.stripe_server.errors import Json, invalid, malformed, missing_parameter
from tests.stripe_server.expansion import part
from tests.stripe_server.lists import page, whole
from tests.stripe_server.params import Params
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World


def lines_of(world: World, params: Params, mode: str) -> list[Json]:
    """Make the lines that a request asks for; prices and products of its own come with them.

    Raises:
        Refusal: there are none, a price does not fit the mode, or their currencies differ.
    """
    given = params.branches("line_items")
    if not given:
        raise missing_parameter("line_items")
    lines = [_line(world, each) for each in given]
    recurring = [each for each in lines if each["price"]["recurring"]]
    if mode == "payment" and recurring:
        message = (
            "You specified `payment` mode but passed a recurring price. Either switch to "
            "`subscription` mode or use only one-time prices."
        )
        raise invalid(message, param="line_items[0][price]")
    if mode == "subscription" and not recurring:
        message = (
            "You must provide at least one recurring price in `subscription` mode when using "
            "prices."
        )
        raise invalid(message, param="line_items")
    if len({each["currency"] for each in lines}) > 1:
        message = "All line items must have the same currency."
        raise invalid(message, param="line_items")
    total = sum(each["amount_subtotal"] for each in lines)
    if mode == "payment" and total:
        money.check(total, lines[0]["currency"], "line_items")
    return lines


def _line(world: World, given: Params) -> Json:
    data = given.branch("price_data")
    if named := given.text("price"):
        price = world.get(named, "price", param=given.path("price"))
        if not price["active"]:
            message = "The price specified is inactive. This field only accepts active prices."
            raise invalid(message, param=given.path("price"))
        if not world.get(price["product"], "product")["active"]:
            message = f"The price `{named}` is not available to be purchased because its product is not active."
            raise invalid(message, param=given.path("price"))
    elif data:
        price = catalogue.price_of_data(world, data, _product(world, data))
        # A price made for one session is no price that anybody may use again.
        world.change(price, active=False)
    else:
        message = f"You must specify either `price` or `price_data` for {given.path('price')}."
        raise invalid(message, param=given.path("price"))
    quantity = given.integer("quantity")
    if quantity is None:
        message = "Quantity is required. Add `quantity` to `line_items[0]`"
        raise malformed(message, code="parameter_missing", param=given.path("quantity"))
    amount = price["unit_amount"] * quantity
    return {
        "id": f"li_1{world.ids.letters(23)}",
        "object": "item",
        "adjustable_quantity": _adjustable(given.branch("adjustable_quantity")),
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": world.get(price["product"], "product")["name"],
        "metadata": given.metadata(),
        "price": dict(price),
        "quantity": quantity,
    }


def _adjustable(given: Params) -> Json | None:
    if not given.flag("enabled"):
        return None
    least, most = given.integer("minimum"), given.integer("maximum")
    return {"enabled": True, "minimum": least or 0, "maximum": 99 if most is None else most}


def take(line: Json, quantity: int) -> None:
    """Let the customer buy another quantity of a line.

    Raises:
        ValueError: the line has a fixed quantity, or not so many.
    """
    bounds = line["adjustable_quantity"]
    if bounds is None or not bounds["minimum"] <= quantity <= bounds["maximum"]:
        raise ValueError(f"nobody can buy {quantity} of {line['description']!r}: {bounds}")
    line.update(quantity=quantity, amount_subtotal=line["price"]["unit_amount"] * quantity)


def start_free(lines: list[Json]) -> None:
    """Charge nothing for what recurs: its first period is a trial."""
    for each in lines:
        if each["price"]["recurring"]:
            each.update(amount_subtotal=0, amount_total=0)


def _product(world: World, data: Params) -> str:
    if named := data.text("product"):
        return str(world.get(named, "product", param=data.path("product"))["id"])
    described = data.branch("product_data")
    if not described:
        raise missing_parameter(data.path("product"))
    made = catalogue.create_product(
        world,
        described.demand("name"),
        active=False,
        description=described.text("description"),
        images=described.texts("images"),
        metadata=described.metadata(),
    )
    return str(made["id"])


def priced(world: World, lines: list[Json], applied: list[Json], tax: int) -> None:
    """Take the discounts off the lines and add the tax, so that the lines give the sums.

    One discount after the other, each of what it applies to.
    """
    left = [int(each["amount_subtotal"]) for each in lines]
    for each in applied:
        coupon = world.get(each["coupon"], "coupon")
        products = [line["price"]["product"] for line in lines]
        weights = discounts.eligible(world, coupon, list(zip(products, left, strict=True)))
        taken = spread(discounts.reduction(coupon, sum(weights)), weights)
        left = [amount - off for amount, off in zip(left, taken, strict=True)]
    taxes = spread(tax, left)
    for line, net, added in zip(lines, left, taxes, strict=True):
        off = line["amount_subtotal"] - net
        line.update(amount_discount=off, amount_tax=added, amount_total=net + added)


def spread(amount: int, weights: list[int]) -> list[int]:
    """Divide minor units by weights, so that the parts give the whole again."""
    total, parts, before, given = sum(weights), [], 0, 0
    for weight in weights:
        before += weight
        until = amount * before // total if total else 0
        parts.append(until - given)
        given = until
    return parts


def sums(lines: list[Json]) -> Json:
    """The sums of a session, in minor units."""
    discount, tax = (
        sum(each[name] for each in lines) for name in ("amount_discount", "amount_tax")
    )
    return {
        "amount_subtotal": sum(each["amount_subtotal"] for each in lines),
        "amount_total": sum(each["amount_total"] for each in lines),
        "total_details": {
            "amount_discount": discount,
            "amount_shipping": 0,
            "amount_tax": tax,
        },
    }


@part("checkout.session", "line_items")
def line_items_part(world: World, session: Json) -> Json:
    path = f"/v1/checkout/sessions/{session['id']}/line_items"
    return whole(world.note(session["id"])["lines"], path)


@route("GET", "/v1/checkout/sessions/{session}/line_items")
def list_line_items(call: Call) -> Json:
    call.world.get(call.id, "checkout.session")
    return page(call.world.note(call.id)["lines"], call.params, call.path)
