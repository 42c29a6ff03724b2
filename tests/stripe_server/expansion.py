"""`expand[]`: ids that become the objects they name, and parts that are served on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.stripe_server.copies import copied
from tests.stripe_server.errors import Json, malformed
from tests.stripe_server.world import World

DEPTH_MAX: Final = 4

# Parts that Stripe leaves out unless they are asked for: (kind, field) -> how to make them.
Part = Callable[[World, Json], Any]
PARTS: Final[dict[tuple[str, str], Part]] = {}


def part(kind: str, field: str) -> Callable[[Part], Part]:
    """Register how a part is made that an object has only when it is expanded."""

    def register(make: Part) -> Part:
        PARTS[kind, field] = make
        return make

    return register


def expanded(world: World, answer: Json, paths: list[str]) -> Json:
    """Return a copy of an answer with these paths expanded.

    Raises:
        Refusal: a path leads nowhere, or deeper than four steps.
    """
    made = copied(answer)
    for path in paths:
        parts = path.split(".")
        if len(parts) > DEPTH_MAX:
            message = f"You cannot expand more than 4 levels of a property. Property: {path}"
            raise malformed(message, param="expand")
        _expand(world, made, parts, path)
    return made


def _expand(world: World, holder: Any, parts: list[str], path: str) -> None:
    if isinstance(holder, list):
        for each in holder:
            _expand(world, each, parts, path)
        return
    if not isinstance(holder, dict):
        return
    name, *below = parts
    make = PARTS.get((str(holder.get("object")), name))
    if make and name not in holder:
        holder[name] = copied(make(world, holder))
    elif name not in holder:
        message = f"This property cannot be expanded ({path})."
        raise malformed(message, param="expand")
    value = holder[name]
    if isinstance(value, str):
        found = world.objects.get(value) or world.deleted.get(value)
        if found is None:
            message = f"This property cannot be expanded ({path})."
            raise malformed(message, param="expand")
        holder[name] = copied(found)
    elif isinstance(value, list):
        holder[name] = [_object(world, each) for each in value]
    if below:
        _expand(world, holder[name], below, path)


def _object(world: World, value: Any) -> Any:
    """A member of a list of ids is expanded with the list."""
    if isinstance(value, str) and value in world.objects:
        return copied(world.objects[value])
    return value
