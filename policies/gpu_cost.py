"""GPU cost models: what a request is estimated to cost, exact until one rounding up to micro-dollars at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter

from policies.fields import Amount, Name, PositiveNumber
from policies.part import AT_KEY, Fault, Part
from policies.request import AttributeValue
from policies.table import Linear, Table, evaluate, formula_by_shape
from policies.units import GPU_COST_MICRO_USD_MAX, SECONDS_PER_HOUR, micro_usd

_amount: TypeAdapter[Decimal] = TypeAdapter(Amount)
Formula = Annotated[Amount | Table | Linear, formula_by_shape(_amount, "a number")]


class Gpu(Part):
    """A type of GPU and its price."""

    example: ClassVar[str] = "{usd_per_hour: 2.50}"

    usd_per_hour: PositiveNumber = Field(
        description="Price of one GPU for one hour, in US dollars."
    )


class GpuCost(Part):
    """Links a request to its estimated GPU cost: GPU seconds at a GPU's price, or dollars directly."""

    example: ClassVar[str] = "{gpu: h100, gpu_seconds: 140}"

    gpu: Name | None = Field(default=None, description="The GPU type it runs on, one of `gpus`.")
    gpu_seconds: Formula | None = Field(
        default=None, description="Seconds on the GPU: a number, {by, table} or {base, each}."
    )
    usd: Formula | None = Field(
        default=None,
        description="Dollars directly, for a vendor's API: a number, {by, table} or {base, each}.",
    )
    ceiling_gpu_seconds: PositiveNumber | None = Field(
        default=None,
        description="The most that is estimated, and the estimate where there is no other.",
    )

    @classmethod
    def faults(cls, value: Mapping[str, Any]) -> Iterator[Fault]:
        """Return what is wrong with the combination of keys: it takes one way to a cost."""
        if ("usd" in value) == ("gpu_seconds" in value):
            end = ", not both" if "usd" in value else ""
            yield Fault((), f"give `gpu` with `gpu_seconds`, or `usd`{end}")
        elif "usd" in value:
            for key in ("gpu", "ceiling_gpu_seconds"):
                if key in value:
                    yield Fault((key,), "goes with `gpu_seconds`: `usd` is the whole cost", AT_KEY)
        elif "gpu" not in value:
            yield Fault((), "`gpu` is missing: `gpu_seconds` needs one of `gpus`")

    @property
    def formula(self) -> Decimal | Table | Linear:
        """The seconds or dollars, as written."""
        formula = self.usd if self.gpu_seconds is None else self.gpu_seconds
        assert formula is not None, "one of them is given"
        return formula

    def estimate_micro_usd(
        self, attributes: Mapping[str, AttributeValue], gpus: Mapping[str, Gpu]
    ) -> int:
        """Return the estimated cost in micro-dollars, rounded up once.

        Raises:
            LookupError: it has no value for these attributes, or none that can be a cost.
        """
        cost = micro_usd(self.estimate_usd(attributes, gpus))
        if cost > GPU_COST_MICRO_USD_MAX:
            raise LookupError("it would be above a billion dollars")
        return cost

    def estimate_usd(
        self, attributes: Mapping[str, AttributeValue], gpus: Mapping[str, Gpu]
    ) -> Fraction:
        """Return the estimated cost in dollars, exactly.

        Raises:
            LookupError: it has no value for these attributes, or a negative one.
        """
        if self.gpu is None:
            dollars = evaluate(self.formula, attributes)
        else:
            price = Fraction(gpus[self.gpu].usd_per_hour)
            dollars = self.estimate_seconds(attributes) * price / SECONDS_PER_HOUR
        if dollars is None or dollars < 0:
            raise LookupError("it has no value for these attributes")
        return dollars

    def estimate_seconds(self, attributes: Mapping[str, AttributeValue]) -> Fraction:
        """Return the estimated GPU time in seconds, exactly: zero where dollars are given directly.

        Raises:
            LookupError: it has no value for these attributes, and there is no ceiling.
        """
        if self.gpu_seconds is None:
            return Fraction(0)
        seconds = evaluate(self.gpu_seconds, attributes)
        ceiling = self.ceiling_gpu_seconds
        if seconds is None or seconds < 0:
            if ceiling is None:
                raise LookupError("it has no GPU time for these attributes, and no ceiling")
            return Fraction(ceiling)
        return seconds if ceiling is None else min(seconds, Fraction(ceiling))
