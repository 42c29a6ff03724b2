"""GPU cost models: what a request is estimated to cost, exact until one rounding up to micro-dollars at the end."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policies.fields import Amount, Name, PositiveNumber
from policies.request import AttributeValue
from policies.table import Linear, Table, evaluate
from policies.units import SECONDS_PER_HOUR, micro_usd


class Gpu(BaseModel):
    """A type of GPU and its price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd_per_hour: PositiveNumber = Field(description="Price of one GPU for one hour, in US dollars.")


class GpuCost(BaseModel):
    """Links a request to its estimated GPU cost: GPU seconds at a GPU's price, or dollars directly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: Name | None = Field(default=None, description="The GPU type it runs on, one of `gpus`.")
    gpu_seconds: Amount | Table | Linear | None = Field(
        default=None, description="Seconds on the GPU: a number, {by, table} or {base, each}."
    )
    usd: Amount | Table | Linear | None = Field(
        default=None, description="Dollars directly, for a vendor's API: a number, {by, table} or {base, each}."
    )
    ceiling_gpu_seconds: PositiveNumber | None = Field(
        default=None, description="The most that is estimated, and the estimate where there is no other."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("write {gpu, gpu_seconds}, or {usd}")
        if ("usd" in value) == ("gpu_seconds" in value):
            raise ValueError("give `gpu` with `gpu_seconds`, or `usd`, and not both")
        if ("usd" in value) and ({"gpu", "ceiling_gpu_seconds"} & set(value)):
            raise ValueError("`usd` is the whole cost: `gpu` and `ceiling_gpu_seconds` go with `gpu_seconds`")
        if ("gpu_seconds" in value) and "gpu" not in value:
            raise ValueError("`gpu_seconds` needs a `gpu`, one of `gpus`")
        return value

    @property
    def formula(self) -> Decimal | Table | Linear:
        """The seconds or dollars, as written."""
        return self.usd if self.gpu_seconds is None else self.gpu_seconds  # type: ignore[return-value]

    def estimate_micro_usd(self, attributes: Mapping[str, AttributeValue], gpus: Mapping[str, Gpu]) -> int:
        """Return the estimated cost in micro-dollars, rounded up once.

        Raises:
            LookupError: the formula has no value for these attributes, and there is no ceiling.
        """
        amount = evaluate(self.formula, attributes)
        if self.gpu is None:
            if amount is None:
                raise LookupError("no cost for these attributes")
            return micro_usd(amount)
        ceiling = None if self.ceiling_gpu_seconds is None else Fraction(self.ceiling_gpu_seconds)
        known = [seconds for seconds in (amount, ceiling) if seconds is not None]
        if not known:
            raise LookupError("no GPU time for these attributes, and no ceiling_gpu_seconds")
        price = Fraction(gpus[self.gpu].usd_per_hour)
        return micro_usd(min(known) * price / SECONDS_PER_HOUR)
