"""The parameters of one request, read by name and by type."""

from __future__ import annotations

from typing import Any, Final

from tests.stripe_server.errors import malformed, missing_parameter, not_an_integer
from tests.stripe_server.forms import Tree, ordered, path_of

KEYS_MAX: Final = 50
KEY_CHARACTERS_MAX: Final = 40
VALUE_CHARACTERS_MAX: Final = 500


class Params:
    """A branch of a request's tree; `at` is where it hangs, for the names in errors.

    `read` holds the names that an endpoint asked for: what it never asks for, it does not do.
    """

    def __init__(self, tree: Tree, at: list[str] | None = None) -> None:
        self.tree = tree
        self.at = at or []
        self.read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        self.read.add(name)
        return name in self.tree

    def __bool__(self) -> bool:
        return bool(self.tree)

    def _given(self, name: str) -> Any:
        self.read.add(name)
        return self.tree.get(name)

    def path(self, name: str) -> str:
        return path_of([*self.at, name])

    def text(self, name: str) -> str | None:
        """The value, or None where it is absent or empty: Stripe clears a field by an empty one."""
        value = self._given(name)
        return value if isinstance(value, str) and value else None

    def demand(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise missing_parameter(self.path(name))
        return value

    def integer(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        try:
            return int(value)
        except ValueError:
            raise not_an_integer(self.path(name), value) from None

    def flag(self, name: str) -> bool | None:
        value = self.text(name)
        if value is None:
            return None
        if value not in {"true", "false"}:
            raise malformed(f"Invalid boolean: {value}", param=self.path(name))
        return value == "true"

    def branch(self, name: str) -> Params:
        value = self._given(name)
        return Params(value if isinstance(value, dict) else {}, [*self.at, name])

    def branches(self, name: str) -> list[Params]:
        value = self._given(name)
        if not isinstance(value, dict):
            return []
        return [
            Params(each, [*self.at, name, str(index)])
            for index, each in enumerate(ordered(value))
            if isinstance(each, dict)
        ]

    def texts(self, name: str) -> list[str]:
        value = self._given(name)
        return [str(each) for each in ordered(value)] if isinstance(value, dict) else []

    def metadata(self, before: dict[str, str] | None = None) -> dict[str, str]:
        """The metadata after this request: an empty value unsets a key, an empty map all."""
        given = self._given("metadata")
        if given == "":
            return {}
        merged = dict(before or {})
        for key, value in (given if isinstance(given, dict) else {}).items():
            where = self.path("metadata")
            if len(key) > KEY_CHARACTERS_MAX:
                raise malformed(f"Metadata keys can be at most 40 characters: {key}", param=where)
            if len(value) > VALUE_CHARACTERS_MAX:
                raise malformed(
                    f"Metadata values can be at most 500 characters: {key}", param=where
                )
            merged[key] = value
        merged = {key: value for key, value in merged.items() if value != ""}
        if len(merged) > KEYS_MAX:
            raise malformed("Metadata can have at most 50 keys.", param=self.path("metadata"))
        return merged
