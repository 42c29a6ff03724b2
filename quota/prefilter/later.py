"""Findings that are worked out when somebody looks at them: most callers of a rate limiter never do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from policies.decision import Finding


class LaterFindings(Sequence[Finding]):
    """What each policy found, worked out at the first look. Equal to a tuple of the same findings."""

    __slots__ = ("_find", "_found")

    def __init__(self, find: Callable[[], tuple[Finding, ...]]) -> None:
        """`find` is called once, at the first look."""
        self._find = find
        self._found: tuple[Finding, ...] | None = None

    def all(self) -> tuple[Finding, ...]:
        """Return the findings."""
        if self._found is None:
            self._found = self._find()
        return self._found

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        return self.all()[index]

    def __len__(self) -> int:
        return len(self.all())

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self.all())

    def __repr__(self) -> str:
        return repr(self.all())

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self.all(),)
