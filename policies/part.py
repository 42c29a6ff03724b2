"""The base of everything in a policy file, and how it says what is wrong.

pydantic finds most of what is wrong; this module puts it into words, at the place in the file where it is wrong.
A union takes its member by the shape of the value, so that one mistake gives one error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from policies.instants import Length
from policies.suggest import did_you_mean, listed, one_line, shown

Path = tuple[int | str, ...]
"""Where a value stands: the keys and indexes that lead to it."""

AT_VALUE: Final = "wrong_value"
AT_KEY: Final = "unknown_key"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at a place below the part that says so. `kind`: whether its value or its key is meant."""

    loc: Path
    message: str
    kind: str = AT_VALUE


class Part(BaseModel):
    """Base of everything in a policy file: immutable, refuses unknown keys, says in words what is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: ClassVar[str] = ""
    """What one looks like in a file: `{usd_per_hour: 2.50}`."""

    @classmethod
    def written(cls) -> str:
        """Say how one is written."""
        return f"a mapping such as {cls.example}" if cls.example else "a mapping"

    @classmethod
    def faults(cls, value: Mapping[str, Any]) -> Iterable[Fault]:  # noqa: ARG003 - for subclasses
        """Return what is wrong with the combination of keys, however wrong their values may be."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _say_what_is_wrong(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, BaseModel):
            return handler(value)
        if not isinstance(value, Mapping):
            raise refusal([Fault((), f"must be {cls.written()}, not {shown(value)}")])
        found = list(cls.faults(value))
        try:
            part = handler(value)
        except ValidationError as error:
            raise refusal([*found, *faults_of(error, cls)]) from None
        if found:
            raise refusal(found)
        return part


def path_text(path: Path) -> str:
    """Spell a path: `plans.standard.sources[0].units`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{one_line(step)}"
    return text.removeprefix(".")


def refusal(faults: Sequence[Fault]) -> ValidationError:
    """Return the error that carries these faults to whoever validates the part around it."""
    lines = [
        InitErrorDetails(
            type=PydanticCustomError(fault.kind, "{text}", {"text": fault.message}),
            loc=fault.loc,
            input=None,
        )
        for fault in faults
    ]
    return ValidationError.from_exception_data("policy file", lines)


def faults_of(error: ValidationError, part: type[BaseModel] | None = None) -> list[Fault]:
    """Put what pydantic found into words. `part`: the model in which it found it."""
    details = error.errors(include_url=False)
    return list(dict.fromkeys(_fault(detail, part) for detail in details))


class ByShape:
    """Annotates a union: the shape of a value chooses the one member that it is validated as."""

    def __init__(self, choose: Callable[[Any], TypeAdapter[Any]]) -> None:
        self._choose = choose

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: self._choose(value).validate_python(value),
            serialization=core_schema.plain_serializer_function_ser_schema(spell),
            json_schema_input_schema=handler(source),
        )


def spell(value: Any) -> Any:
    """Spell a value as the canonical content does: numbers and lengths of time as text."""
    match value:
        case BaseModel():
            return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
        case Mapping():
            return {key: spell(item) for key, item in value.items()}
        case list() | tuple():
            return [spell(item) for item in value]
        case Decimal():
            return canonical_decimal(value)
        case Length():
            return str(value)
        case _:
            return value


def canonical_decimal(number: Decimal) -> str:
    """Spell a number in the one way that equal numbers share: `4.00` and `4` are both `4`."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _fault(detail: ErrorDetails, part: type[BaseModel] | None) -> Fault:
    """Put one of pydantic's errors into words."""
    kind, loc, context = detail["type"], detail["loc"], detail.get("ctx", {})
    if kind in (AT_VALUE, AT_KEY):
        return Fault(loc, detail["msg"], kind)
    if kind == "missing" and loc:
        return Fault(loc[:-1], _missing(str(loc[-1]), part if len(loc) == 1 else None))
    if kind == "extra_forbidden" and loc:
        known = _keys(part) if part is not None and len(loc) == 1 else ()
        hint = did_you_mean(str(loc[-1]), known) if known else ""
        return Fault(loc, f"unknown key{hint}", AT_KEY)
    at_key = bool(loc) and loc[-1] == "[key]"
    return Fault(loc, _words(kind, detail, context), AT_KEY if at_key else AT_VALUE)


_WORDS: Final[Mapping[str, str]] = {
    "greater_than_equal": "must be at least {ge}, not {input}",
    "greater_than": "must be above {gt}, not {input}",
    "less_than_equal": "must be at most {le}, not {input}",
    "less_than": "must be below {lt}, not {input}",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} of them",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be text, not {input}",
    "bool_type": "must be true or false, not {input}",
    "bool_parsing": "must be true or false, not {input}",
    "int_type": "must be a whole number, not {input}",
    "int_parsing": "must be a whole number, not {input}",
    "int_from_float": "must be a whole number, not {input}",
    "dict_type": "must be a mapping, not {input}",
    "mapping_type": "must be a mapping, not {input}",
    "model_type": "must be a mapping, not {input}",
    "list_type": "must be a list, not {input}",
    "tuple_type": "must be a list, not {input}",
    "set_type": "must be a list, not {input}",
    "decimal_type": "must be a number, not {input}",
    "decimal_parsing": "must be a number, not {input}",
}


def _words(kind: str, detail: ErrorDetails, context: Mapping[str, Any]) -> str:
    if kind == "value_error" and "error" in context:
        return str(context["error"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'|(\d+)", str(context.get("expected", "")))
        return _choice(detail["input"], [text or number for text, number in choices])
    if kind in _WORDS:
        return _WORDS[kind].format(**context, input=shown(detail["input"]))
    message = detail["msg"].removeprefix("Input ")
    return f"{message[:1].lower()}{message[1:]}, not {shown(detail['input'])}"


def _choice(value: Any, choices: Sequence[str]) -> str:
    close = did_you_mean(str(value), choices)
    hint = close if "did you mean" in close and str(value) not in choices else ""
    return f"must be {'one of ' if len(choices) > 1 else ''}{listed(choices)}, not {shown(value)}{hint}"


def _missing(name: str, part: type[BaseModel] | None) -> str:
    fields = {} if part is None else part.model_fields
    field = next((field for key, field in fields.items() if name in (key, field.alias)), None)
    description = (field.description if field else None) or ""
    if description[1:2].islower():
        description = description[0].lower() + description[1:]
    if not description.endswith("..."):
        description = description.removesuffix(".")
    hint = f": {description}" if description else ""
    return f"`{name}` is missing{hint}"


def _keys(part: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in part.model_fields.items()]
