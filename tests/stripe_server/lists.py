"""Stripe's lists: the latest first, a page at a time, cut by filters and by dates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.stripe_server.errors import Json, malformed, no_such
from tests.stripe_server.params import Params

LIMIT_USUAL: Final = 10
LIMIT_MAX: Final = 100


def page(items: Sequence[Json], params: Params, path: str) -> Json:
    """Return the page of a list that the cursor and the limit of the request ask for.

    Raises:
        Refusal: the limit is out of bounds, or the cursor names nothing in the list.
    """
    limit = params.integer("limit")
    limit = LIMIT_USUAL if limit is None else limit
    if not 1 <= limit <= LIMIT_MAX:
        bound = "greater than or equal to 1" if limit < 1 else "less than or equal to 100"
        message = f"This value must be {bound}."
        raise malformed(message, code="parameter_invalid_integer", param="limit")
    before = params.text("ending_before")
    if before:
        found = list(items[: _place(items, before, "ending_before")])
        data, more = found[-limit:], len(found) > limit
    else:
        after = params.text("starting_after")
        found = list(items[_place(items, after, "starting_after") + 1 :] if after else items)
        data, more = found[:limit], len(found) > limit
    return {"object": "list", "data": data, "has_more": more, "url": path}


def whole(items: Sequence[Json], path: str) -> Json:
    """Return a list that is part of an object: its first ten members."""
    more = len(items) > LIMIT_USUAL
    return {"object": "list", "data": list(items[:LIMIT_USUAL]), "has_more": more, "url": path}


def narrowed(items: Sequence[Json], params: Params, fields: dict[str, str]) -> list[Json]:
    """Keep what the request's filters allow. `fields` maps a parameter to a path in the object.

    Both may be dotted: `customer_details.email` is `customer_details[email]` of the request.
    """
    kept = list(items)
    for name, field in fields.items():
        *branches, leaf = name.split(".")
        holder = params
        for each in branches:
            holder = holder.branch(each)
        value = holder.text(leaf)
        if value is not None:
            kept = [each for each in kept if _is(at(each, field), value)]
    return dated(kept, params, "created")


def dated(items: Sequence[Json], params: Params, field: str) -> list[Json]:
    """Keep what lies within `created[gte]` and its kin, or at `created` itself."""
    if (exactly := params.integer(field)) is not None:
        return [each for each in items if each[field] == exactly]
    kept = list(items)
    for name, holds in _COMPARISONS.items():
        bound = params.branch(field).integer(name)
        if bound is not None:
            kept = [each for each in kept if holds(each[field], bound)]
    return kept


def at(subject: Json, path: str) -> Any:
    """Return what lies at a dotted path; None where nothing does."""
    value: Any = subject
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}


def _is(value: Any, asked: str) -> bool:
    if isinstance(value, bool):
        return asked == str(value).lower()
    return value is not None and str(value) == asked


def _place(items: Sequence[Json], identity: str, param: str) -> int:
    for place, each in enumerate(items):
        if each["id"] == identity:
            return place
    raise no_such("object", identity, param=param, status=400)
