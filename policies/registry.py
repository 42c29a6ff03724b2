"""Which policy classes there are: the built-in ones, and those that installed packages add.

A package adds a policy by naming its class in the entry-point group `comptroller.policies`:

    [project.entry-points."comptroller.policies"]
    weekend_only = "my_package.policies:WeekendOnly"

The class is a `Limit`, `Cap` or `Source` whose `kind` is a literal. It then works in the YAML like a built-in one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final, TypeVar, get_args

from policies.errors import PolicyError
from policies.kinds.allowance import Allowance, DailyAllowance
from policies.kinds.concurrency import ConcurrencyLimit
from policies.kinds.credits import Credits
from policies.kinds.rate import RateLimit
from policies.kinds.spend import SpendLimit
from policies.kinds.usage import UsageLimit
from policies.part import Fault, refusal
from policies.policy import Limit, Source
from policies.suggest import did_you_mean, listed, one_line, shown

PolicyT = TypeVar("PolicyT", Limit, Source)

GROUP: Final = "comptroller.policies"
BUILT_IN: Final[tuple[type[Limit | Source], ...]] = (
    RateLimit,
    ConcurrencyLimit,
    UsageLimit,
    SpendLimit,
    DailyAllowance,
    Allowance,
    Credits,
)


def kind_of(policy: type[Limit | Source]) -> str:
    """Return the kind that a policy class serves.

    Raises:
        PolicyError: its `kind` is no literal of one text.
    """
    kinds = get_args(policy.model_fields["kind"].annotation)
    if len(kinds) != 1 or not isinstance(kinds[0], str):
        raise PolicyError(
            [f"policy class `{policy.__qualname__}` needs `kind: Literal[...]` with one name"]
        )
    return kinds[0]


@cache
def kinds() -> Mapping[str, type[Limit | Source]]:
    """Return every policy class by its kind, those of installed packages included.

    Raises:
        PolicyError: an installed one cannot be loaded, is no policy, or takes a kind that is taken.
    """
    known: dict[str, type[Limit | Source]] = {kind_of(policy): policy for policy in BUILT_IN}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            policy = entry.load()
        except Exception as error:
            raise PolicyError(
                [
                    f"policy plug-in `{entry.name}` ({entry.value}) cannot be loaded: {_reason(error)}"
                ]
            ) from error
        if not (isinstance(policy, type) and issubclass(policy, (Limit, Source))):
            raise PolicyError(
                [f"policy plug-in `{entry.name}` ({entry.value}) is no subclass of Limit or Source"]
            )
        kind = kind_of(policy)
        if kind in known and known[kind] is not policy:
            raise PolicyError(
                [f"policy plug-in `{entry.name}` takes the kind `{kind}`, which is taken already"]
            )
        known[kind] = policy
    return known


def _reason(error: Exception) -> str:
    text = one_line(str(error), 200) or type(error).__name__
    return f"{text[0].lower()}{text[1:]}"


def limit_kinds() -> dict[str, type[Limit]]:
    """Return the classes of limits by kind."""
    return {kind: policy for kind, policy in kinds().items() if issubclass(policy, Limit)}


def source_kinds() -> dict[str, type[Source]]:
    """Return the classes of sources by kind."""
    return {kind: policy for kind, policy in kinds().items() if issubclass(policy, Source)}


def as_limit(value: Any) -> Limit:
    """Build a limit from its mapping."""
    return (
        value
        if isinstance(value, Limit)
        else _class_of(value, limit_kinds(), "limit").model_validate(value)
    )


def as_source(value: Any) -> Source:
    """Build a source from its mapping."""
    return (
        value
        if isinstance(value, Source)
        else _class_of(value, source_kinds(), "source").model_validate(value)
    )


def _class_of(value: Any, known: Mapping[str, type[PolicyT]], what: str) -> type[PolicyT]:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind is None:
        raise ValueError(f"a {what} is a mapping with a `kind`, one of {listed(sorted(known))}")
    if not isinstance(kind, str) or kind not in known:
        message = f"unknown {what} kind {shown(kind)}{did_you_mean(str(kind), known)}"
        raise refusal([Fault(("kind",), message)])
    return known[kind]
