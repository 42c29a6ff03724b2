"""Recorded demand: trace files read row by row, in order of time.

`csv` has a header of its own: `at, account, operation, status, gpu_seconds`, optional `plan` and
`member`, and `attr.NAME` columns. `gentd26` is the request trace of the public GenTD26 dataset as
it is published. A row that cannot be a request says so in `fault`, and the replay decides what
becomes of it; a file that cannot be read as a trace at all is an error.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal

from policies.errors import InvalidRequest
from policies.policy_set import PolicySet

Status = Literal["settle", "release", "open"]
Cells = Mapping[str, str]

FORMATS: Final = ("gentd26", "csv")
ATTRIBUTE: Final = "attr."
_REQUIRED: Final = ("at", "account", "operation", "status", "gpu_seconds")
_OPTIONAL: Final = ("plan", "member")
_STATUSES: Final[Mapping[str, Status]] = {"succeeded": "settle", "failed": "release"}

GENTD26_OPERATION: Final = "image.generate"
_GENTD26_ATTRIBUTES: Final = {
    "type": "predict_type",
    "images": "num_images_per_prompt",
    "steps": "num_inference_steps",
    "model": "checkpoint_model_version_id",
    "loras": "num_lora",
}
_GENTD26_STATUSES: Final[Mapping[str, Status]] = {"SUCCEED": "settle", "FAILED": "release"}
_GENTD26_COLUMNS: Final = (
    "gmt_create",
    "groupId",
    "predict_status",
    "exec_time_seconds",
    *_GENTD26_ATTRIBUTES.values(),
)

# Two digits of exponent: a number that is spelled shorter than it is long must not fill the memory.
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?\Z", re.ASCII)
_NUMBER_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded request. `number` counts the rows from 1, `line` is where it begins in its file.

    `gpu_seconds` is None where the recording has no time on the GPU, which is not zero. `fault`
    says why the row cannot be a request at all; None where that is for the policy file to say.
    """

    number: int
    line: int
    at: datetime
    account: str
    operation: str
    attributes: Mapping[str, object]
    status: Status
    gpu_seconds: Decimal | None
    plan: str | None = None
    member: str | None = None
    fault: str | None = None


def read_trace(
    lines: Iterable[str], form: str, policy_set: PolicySet, *, name: str
) -> Iterator[Row]:
    """Read a trace row by row; `name` is what errors call it, and `form` is `gentd26` or `csv`.

    The policy set says of which type an operation's attributes are.

    Raises:
        InvalidRequest: the file is no such trace, a time cannot be read, or the rows are not in
            order of time.
    """
    if form not in FORMATS:
        raise InvalidRequest(f"unknown format `{form!s:.40}`: use {' or '.join(FORMATS)}")
    gentd26 = form == "gentd26"
    time_column = "gmt_create" if gentd26 else "at"
    row_of: Callable[[Cells, Row, PolicySet], Row] = _gentd26_row if gentd26 else _csv_row
    header: list[str] | None = None
    number, latest = 0, None
    for line, cells in _records(lines, name):
        if header is None:
            header = _header(cells, gentd26=gentd26, name=name)
            continue
        number += 1
        fault = None
        if len(cells) != len(header):
            fault = f"has {len(cells)} cells where the header has {len(header)}"
        named = dict(zip(header, cells, strict=False))
        at = _time(named.get(time_column, ""), time_column, f"{name}:{line}")
        if latest is not None and at < latest:
            raise InvalidRequest(
                f"{name}:{line}: {at.isoformat()} is before the row above it, at "
                f"{latest.isoformat()}: a trace must be in order of time"
            )
        latest = at
        blank = Row(number, line, at, "", "", {}, "open", None, fault=fault)
        yield blank if fault is not None else row_of(named, blank, policy_set)
    if header is None:
        raise InvalidRequest(f"{name}:1: is empty: a trace begins with its header")


def _records(lines: Iterable[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (the line where it begins, cells) of every record that is not blank."""
    reader = csv.reader(lines, strict=True)
    begins = 1
    try:
        for cells in reader:
            if cells:
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InvalidRequest(f"{name}:{begins}: cannot be read as CSV: {error}") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name}:{begins}: is not UTF-8 text") from None


def _header(cells: list[str], *, gentd26: bool, name: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    needed = _GENTD26_COLUMNS if gentd26 else _REQUIRED
    missing = [column for column in needed if column not in header]
    twice = sorted({column for column in header if header.count(column) > 1})
    strange = [] if gentd26 else [column for column in header if not _is_known(column)]
    if missing:
        raise InvalidRequest(f"{name}:1: column `{missing[0]}` is missing in the header")
    if twice:
        raise InvalidRequest(f"{name}:1: column `{twice[0]:.60}` is there twice")
    if strange:
        raise InvalidRequest(
            f"{name}:1: unknown column `{strange[0]:.60}`: attributes are columns such as "
            "attr.seconds"
        )
    return header


def _is_known(column: str) -> bool:
    return column in (*_REQUIRED, *_OPTIONAL) or (
        column.startswith(ATTRIBUTE) and len(column) > len(ATTRIBUTE)
    )


def _gentd26_row(cells: Cells, row: Row, policy_set: PolicySet) -> Row:
    declared = policy_set.operations.get(GENTD26_OPERATION)
    given = {
        name: cells[column]
        for name, column in _GENTD26_ATTRIBUTES.items()
        if declared is None or name in declared.attributes
    }
    return _row(
        row,
        policy_set,
        given,
        account=cells["groupId"],
        operation=GENTD26_OPERATION,
        status=_GENTD26_STATUSES.get(cells["predict_status"].strip(), "open"),
        gpu_seconds=cells["exec_time_seconds"],
    )


def _csv_row(cells: Cells, row: Row, policy_set: PolicySet) -> Row:
    given = {
        column.removeprefix(ATTRIBUTE): cell
        for column, cell in cells.items()
        if column.startswith(ATTRIBUTE)
    }
    return _row(
        row,
        policy_set,
        given,
        account=cells["account"],
        operation=cells["operation"],
        status=_STATUSES.get(cells["status"].strip(), "open"),
        gpu_seconds=cells["gpu_seconds"],
        plan=cells.get("plan") or None,
        member=cells.get("member") or None,
    )


def _row(
    row: Row,
    policy_set: PolicySet,
    given: Cells,
    *,
    account: str,
    operation: str,
    status: Status,
    gpu_seconds: str,
    plan: str | None = None,
    member: str | None = None,
) -> Row:
    fault: str | None = None
    attributes: dict[str, object] = {}
    seconds: Decimal | None = None
    try:
        attributes = typed_attributes(policy_set, operation, given)
        seconds = seconds_of(gpu_seconds)
    except InvalidRequest as error:
        fault = str(error)
    return Row(
        row.number,
        row.line,
        row.at,
        account,
        operation,
        attributes,
        status,
        seconds,
        plan,
        member,
        fault,
    )


def typed_attributes(policy_set: PolicySet, operation: str, given: Cells) -> dict[str, object]:
    """Return the cells in their attributes' types. An empty one is left out for its default."""
    declared = policy_set.operations.get(operation)
    kinds = {} if declared is None else declared.attributes
    return {
        name: _typed(name, cell, kinds[name].type) if name in kinds else cell
        for name, cell in given.items()
        if cell.strip()
    }


def _typed(name: str, cell: str, kind: str) -> object:
    if kind == "string":
        return cell
    if kind == "boolean":
        value = {"true": True, "false": False}.get(cell.strip().lower())
        if value is None:
            raise InvalidRequest(f"`{name}` must be true or false, not `{cell:.60}`")
        return value
    number = _decimal(cell)
    if number is None:
        raise InvalidRequest(f"`{name}` must be a number, not `{cell:.60}`")
    if kind == "integer" and number == number.to_integral_value():
        return int(number)
    return number


def seconds_of(cell: str) -> Decimal | None:
    """Return a time on the GPU, in seconds; None where there is none."""
    if not cell.strip():
        return None
    seconds = _decimal(cell)
    if seconds is None or seconds < 0:
        raise InvalidRequest(
            f"the time on the GPU must be a number of seconds, zero or more, not `{cell:.60}`"
        )
    return seconds


def _decimal(cell: str) -> Decimal | None:
    text = cell.strip()
    return Decimal(text) if len(text) <= _NUMBER_MAX and _NUMBER.match(text) else None


def _time(cell: str, column: str, where: str) -> datetime:
    """Return an instant in UTC, which is meant where no zone is given."""
    try:
        at = datetime.fromisoformat(cell.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{where}: {column} `{cell:.60}` is no time: write one such as "
            "2026-09-01T14:03:00+00:00"
        ) from None
