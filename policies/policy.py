"""What a policy is: a pydantic model with a `kind`, which declares what it reads and decides from that alone.

A *limit* must hold. A limit that guards sources is consulted with them, any other before them. A *source* can pay.
Third parties add their own through the entry-point group `comptroller.policies` (see `policies.registry`).
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import Field

from policies.decision import Allocation, Reason
from policies.fields import Flag, Name
from policies.part import Part
from policies.request import Circumstances, Request
from policies.state import History, RateRead, Read, State

WhenExhausted = Literal["deny", "next_source"]
Scope = Literal["account", "member"]


class Asked(NamedTuple):
    """One question to a policy: would these `units`, of a grant at this GPU cost, be within it?"""

    request: Request
    circumstances: Circumstances
    units: int
    gpu_cost_micro_usd: int
    currency: str

    @property
    def member(self) -> str:
        """The member who asks; requests without one count as one member of their own."""
        return self.request.member or ""


class Check(NamedTuple):
    """A policy's answer: what was used, out of which limit (None: no limit), what was asked, and whether it fits.

    `rate`: the state that a rate limit keeps if the request is granted.
    """

    used: int
    limit: int | None
    asked: int
    ok: bool
    rate: tuple[RateRead, int] | None = None


class Policy(Part):
    """Base of all policies. Subclasses narrow `kind` to a literal and add their parameters as fields."""

    kind: str = Field(description="Which policy this is.")
    name: Name | None = Field(
        default=None, description="What findings call it; the default is its kind."
    )

    @property
    def label(self) -> str:
        """Its name, or its kind."""
        return self.name or self.kind

    def renamed(self, name: str) -> Self:
        """Return the same policy under a name, without what was worked out under the old one."""
        if name == self.name:
            return self
        copy = self.model_copy(update={"name": name})
        for worked_out in copy.__dict__.keys() - type(self).model_fields.keys():
            del copy.__dict__[worked_out]
        return copy

    def reads(self, asked: Asked) -> tuple[Read, ...]:  # noqa: ARG002 - for subclasses
        """Declare what it reads. Only that will be loaded."""
        return ()

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:  # noqa: ARG002
        """Return the first instant after `now` at which its answer may improve, if nothing else happens; None: never.

        An instant too early costs another look; one too late makes `retry_at` wrong.
        """
        return None


class Limit(Policy):
    """A policy that must hold."""

    reason: ClassVar[str] = Reason.USAGE_EXCEEDED
    counts_units: ClassVar[bool] = False
    """Whether it is asked about the units taken, so that it can be checked only when they are known."""

    def guards(self, source: Source) -> bool:  # noqa: ARG002 - for subclasses
        """Whether it is consulted with this source."""
        return False

    @property
    def is_guard(self) -> bool:
        """Whether it is consulted with sources only."""
        return False

    def check(self, asked: Asked, state: State, now: datetime) -> Check:  # noqa: ARG002 - for subclasses
        """Decide whether the request is within the limit."""
        raise TypeError(f"policy kind `{self.kind}` does not define `check`")

    def room(self, asked: Asked, state: State, now: datetime) -> int:
        """Return how many of the units asked for it lets through: all or none, unless a subclass knows better."""
        return asked.units if self.check(asked, state, now).ok else 0


class Cap(Limit):
    """A limit that may name the sources it guards. One that names none denies."""

    sources: tuple[Name, ...] = Field(
        default=(), description="The sources it guards; none: it denies."
    )
    when_exhausted: WhenExhausted = Field(
        default="deny",
        description="Where it guards sources: deny unless the user consents, or try the next source.",
    )

    def guards(self, source: Source) -> bool:
        """Whether it names this source."""
        return source.label in self.sources

    @property
    def is_guard(self) -> bool:
        """Whether it names any source."""
        return bool(self.sources)


class Source(Policy):
    """A policy that can pay."""

    exhausted: ClassVar[str] = Reason.ALLOWANCE_EXHAUSTED
    paid: ClassVar[bool] = False
    """Whether using it is paid use, which the account may want to be asked about."""

    split: Flag = Field(default=False, description="Whether it may pay for a part of a request.")

    def check(self, asked: Asked, state: State, now: datetime) -> Check:  # noqa: ARG002 - for subclasses
        """Say what was used and what the limit is, and whether the units asked for are available."""
        raise TypeError(f"policy kind `{self.kind}` does not define `check`")

    def allocate(self, asked: Asked, state: State, now: datetime) -> tuple[Allocation, ...]:  # noqa: ARG002
        """Say where the units asked for come from, once they are known to be available."""
        return (Allocation(source=self.label, units=asked.units),)
