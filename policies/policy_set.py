"""The policy set: the whole parsed configuration, identified by the hash of its canonical content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    field_validator,
)

from policies.decision import Price
from policies.errors import InvalidRequest, PolicyError
from policies.fields import (
    ANY_OPERATION,
    Amount,
    Currency,
    Flag,
    LengthOfTime,
    Name,
    OperationName,
    PositiveInt,
    Prices,
    WholeNumber,
    as_currency,
    to_minor,
)
from policies.gpu_cost import Gpu
from policies.instants import Length
from policies.kinds.budget import Budget
from policies.operation import Attribute, Operation, Weights
from policies.part import AT_KEY, Fault, Part, faults_of, path_text
from policies.policy import Limit, Source
from policies.registry import as_limit, as_source
from policies.request import PaidUse, Request
from policies.rules import Ruleset
from policies.suggest import did_you_mean, shown

if TYPE_CHECKING:
    from policies.document import Checked


class Pack(Part):
    """What is sold: units at a price."""

    example: ClassVar[str] = "{units: 10, price: 4.00}"

    units: PositiveInt = Field(description="Units it gives.")
    price: Prices = Field(description="Its price: 4.00, or {usd: 4.00, eur: 4.50}.")
    valid_for: LengthOfTime | None = Field(
        default=None, description="How long its units last; none: for ever."
    )
    priority: WholeNumber = Field(
        default=0, ge=-1000, le=1000, description="Lots of a lower priority are used first."
    )

    def price_in(self, currency: str, default: str) -> Price:
        """Return its price in minor units of a currency.

        Raises:
            InvalidRequest: it is not sold in that currency.
        """
        prices = self.price if isinstance(self.price, dict) else {default: self.price}
        if currency not in prices:
            raise InvalidRequest(
                f"it is not sold in `{currency}`, but in {', '.join(sorted(prices))}"
            )
        return Price(to_minor(prices[currency], currency), currency)


class PlanPrice(Part):
    """What a plan costs per length of time, in one or several currencies."""

    example: ClassVar[str] = "{usd: 20.00, every: 1mo}"

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Amount] = Field(init=False)

    every: LengthOfTime = Field(description="How often it is paid: 1mo, 1y.")

    @classmethod
    def faults(cls, value: Mapping[str, Any]) -> Iterator[Fault]:
        """Return what is wrong with the keys: besides `every`, they are currencies."""
        currencies = [key for key in value if key != "every"]
        if not currencies:
            yield Fault((), "needs an amount such as `usd: 20.00`")
        for key in currencies:
            try:
                as_currency(key)
            except ValueError as error:
                yield Fault((key,), str(error), AT_KEY)

    @property
    def amounts(self) -> dict[str, Decimal]:
        """The amount by currency."""
        return dict(self.__pydantic_extra__ or {})


class OperationOverride(Part):
    """What a plan changes about an operation."""

    example: ClassVar[str] = "{weight: 2}"

    weight: Weights = Field(description="Units it takes under this plan.")


class Plan(Part):
    """A named list of policies."""

    example: ClassVar[str] = "{limits: [...], sources: [...]}"

    extends: Name | None = Field(
        default=None, description="The plan from which it inherits what it does not name."
    )
    price: PlanPrice | None = Field(
        default=None, description="What it costs: {usd: 20.00, every: 1mo}."
    )
    paid_use: PaidUse = Field(
        default="ask", description="Whether credits are used without asking, on consent, or never."
    )
    limits: tuple[Annotated[SerializeAsAny[Limit], BeforeValidator(as_limit)], ...] = Field(
        default=(), description="What must hold, in order."
    )
    sources: tuple[Annotated[SerializeAsAny[Source], BeforeValidator(as_source)], ...] = Field(
        default=(), description="What can pay, tried in order."
    )
    operations: dict[Name, OperationOverride] = Field(
        default_factory=dict, description="Weights of its own."
    )

    def price_in(self, currency: str) -> Price | None:
        """Return its price in minor units of a currency, or None where it is not sold in it."""
        amount = None if self.price is None else self.price.amounts.get(currency)
        return None if amount is None else Price(to_minor(amount, currency), currency)

    def over(self, parent: Plan) -> Plan:
        """Return this plan with what it does not name taken from `parent`."""
        inherited = {name: getattr(parent, name) for name in parent.model_fields_set - {"extends"}}
        named = {name: getattr(self, name) for name in self.model_fields_set - {"extends"}}
        operations = {**parent.operations, **self.operations}
        return Plan.model_construct(**{**inherited, **named, "operations": operations})


class ReleaseRule(Part):
    """What a release gives back, by its reason."""

    example: ClassVar[str] = "{units: return}"

    units: Literal["return", "charge"] = Field(
        default="return", description="Whether the units come back."
    )
    ours: Flag = Field(
        default=False, description="Whether the failure was ours: units of an expired lot live on."
    )
    grace: LengthOfTime = Field(
        default=Length.parse("7d"),
        description="How long units of an expired lot live on where it was ours.",
    )

    @classmethod
    def faults(cls, value: Mapping[str, Any]) -> Iterator[Fault]:
        """Return what is wrong with the combination of keys: a grace needs a failure of ours."""
        if "grace" in value and value.get("ours") is not True:
            yield Fault(
                ("grace",), "goes with `ours: true`: add that, or leave out `grace`", AT_KEY
            )


class PolicySet(Part):
    """The whole configuration. Load one with `PolicySet.load(path)`; `version` is its content's hash."""

    schema_version: Literal[1] = Field(
        alias="schema", description="The version of this file's format: 1."
    )
    currency: Currency = Field(default="usd", description="The currency of prices that name none.")
    gpus: dict[Name, Gpu] = Field(default_factory=dict, description="GPU types and their prices.")
    operations: dict[OperationName, Operation] = Field(
        description="What can be asked for.", min_length=1
    )
    packs: dict[Name, Pack] = Field(default_factory=dict, description="What is sold.")
    plans: dict[Name, Plan] = Field(description="Named lists of policies.", min_length=1)
    default_plan: Name = Field(description="The plan of accounts that have none.")
    budgets: dict[Name, Budget] = Field(
        default_factory=dict, description="Ceilings on GPU spend, over all accounts."
    )
    on_release: dict[Name, ReleaseRule] = Field(
        default_factory=dict,
        description="What a release gives back, by reason; `default` for the reasons not listed.",
    )
    on_expire: Literal["return_units", "charge"] = Field(
        default="return_units", description="What happens to the units of a grant that expires."
    )
    on_late_settle: Literal["forgive", "charge_if_available"] = Field(
        default="forgive",
        description="What happens to the units of a grant that is delivered after it expired.",
    )

    on_dispute: Literal["stop_paid_use", "continue"] = Field(
        default="stop_paid_use",
        description="Whether an account whose buyer disputes a payment may go on using other credits.",
    )
    past_due_grace: LengthOfTime = Field(
        default=Length.parse("7d"),
        description="How long a plan stays whose renewal could not be paid.",
    )

    _rules: dict[tuple[str, str], Ruleset] = PrivateAttr(default_factory=dict)

    @field_validator("budgets", mode="after")
    @classmethod
    def _named(cls, budgets: dict[str, Budget]) -> dict[str, Budget]:
        named = {name: budget.model_copy(update={"name": name}) for name, budget in budgets.items()}
        for budget in named.values():
            budget.model_fields_set.discard("name")  # it is the key: no content of its own
        return named

    @field_validator("operations", "packs", "plans", "budgets", mode="after")
    @classmethod
    def _in_order_of_name(cls, section: dict[str, Any]) -> dict[str, Any]:
        # Files that differ in the order of keys alone are one version, and so must give one answer.
        return dict(sorted(section.items()))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a policy file.

        Raises:
            PolicyError: it cannot be read, or something in it is wrong; `problems` lists everything that is.
        """
        from policies.document import load  # noqa: PLC0415 - the document builds policy sets

        return load(cls, path)

    @classmethod
    def parse(cls, text: str, *, name: str = "policies.yaml") -> Self:
        """Read a policy file's text; `name` is what errors call it.

        Raises:
            PolicyError: something in it is wrong; `problems` lists everything that is.
        """
        from policies.document import parse  # noqa: PLC0415 - the document builds policy sets

        return parse(cls, text, name)

    @classmethod
    def check(cls, path: str | Path) -> Checked:
        """Check a policy file: all that is wrong with it, or notes on what a reader may want to know."""
        from policies.document import check  # noqa: PLC0415 - the document builds policy sets

        return check(cls, path)

    @classmethod
    def unlimited(cls) -> Self:
        """Return a policy set that grants every operation with any attributes, at no GPU cost: for tests of hosts."""
        return cls.model_validate(
            {
                "schema": 1,
                "operations": {ANY_OPERATION: {"limits_only": True}},
                "plans": {"unlimited": {}},
                "default_plan": "unlimited",
            }
        )

    @classmethod
    def from_canonical(cls, content: str) -> Self:
        """Rebuild the policy set whose canonical content this is.

        Raises:
            PolicyError: it is not valid here, say because a plug-in is not installed.
        """
        try:
            return cls.model_validate(json.loads(content))
        except ValidationError as error:
            problems = [f"{path_text(fault.loc)}: {fault.message}" for fault in faults_of(error)]
        raise PolicyError(problems)

    @cached_property
    def canonical(self) -> str:
        """Its content in the one spelling that all equal contents share."""
        content = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def version(self) -> str:
        """The SHA-256 of its canonical content, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    def plan(self, name: str) -> Plan:
        """Return a plan with all that it inherits.

        Raises:
            InvalidRequest: there is none of that name.
        """
        if name not in self.plans:
            raise InvalidRequest(f"unknown plan {shown(name)}{did_you_mean(str(name), self.plans)}")
        plan = self.plans[name]
        return plan if plan.extends is None else plan.over(self.plan(plan.extends))

    def plan_of_account(self, own: str | None) -> str:
        """Return the plan that an account is on: its own, if it was ever put on one.

        Raises:
            InvalidRequest: there is none of that name any more.
        """
        plan = own or self.default_plan
        if plan not in self.plans:
            raise InvalidRequest(
                f"the account is on plan {shown(plan)}, which the policy file does not have: "
                "put it on another with set_plan, or name a plan in the request"
            )
        return plan

    def operation(self, name: str) -> Operation:
        """Return an operation.

        Raises:
            InvalidRequest: there is none of that name.
        """
        operation = self.operations.get(name) or self.operations.get(ANY_OPERATION)
        if operation is None:
            raise InvalidRequest(
                f"unknown operation {shown(name)}{did_you_mean(str(name), self.operations)}"
            )
        return operation

    def request(
        self,
        operation: str,
        attributes: Mapping[str, object] | None,
        member: str | None,
        consent: bool | int,  # noqa: FBT001 - yes, no, or at most so many units
    ) -> Request:
        """Normalise a request: defaults filled in, every value of its declared type.

        Raises:
            InvalidRequest: the operation or an attribute is unknown, or a value is not allowed.
        """
        declared = self.operation(operation)
        if operation in self.operations:
            return Request(operation, declared.normalise(attributes), member, consent)
        free = Operation(
            limits_only=True,
            attributes={name: _attribute_for(v) for name, v in (attributes or {}).items()},
        )
        return Request(operation, free.normalise(attributes), member, consent)

    def pack(self, name: str) -> Pack:
        """Return a pack.

        Raises:
            InvalidRequest: there is none of that name.
        """
        if name not in self.packs:
            raise InvalidRequest(f"unknown pack {shown(name)}{did_you_mean(str(name), self.packs)}")
        return self.packs[name]

    def release_rule(self, reason: str) -> ReleaseRule:
        """Return what a release for this reason gives back."""
        return self.on_release.get(reason) or self.on_release.get("default") or ReleaseRule()

    def rules(self, plan: str, operation: str) -> Ruleset:
        """Return what applies to an operation under a plan.

        Raises:
            InvalidRequest: the plan or the operation is unknown.
        """
        key = (plan, operation)
        if key not in self._rules:
            self._rules[key] = Ruleset.build(self, plan, operation)
        return self._rules[key]

    def gpu(self, name: str) -> Gpu:
        """Return a GPU type.

        Raises:
            InvalidRequest: there is none of that name.
        """
        if name not in self.gpus:
            raise InvalidRequest(f"unknown GPU {shown(name)}{did_you_mean(str(name), self.gpus)}")
        return self.gpus[name]


def _attribute_for(value: object) -> Attribute:
    """Return an attribute that allows this value: the operation that stands for any declares none."""
    if isinstance(value, str):
        return Attribute(type="string")
    return Attribute(type="boolean" if isinstance(value, bool) else "decimal")
