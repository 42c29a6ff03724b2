"""One lane: the operations of its plan one after the other, each tried again under the same key where that may help.

A lane says which call comes next and is told what came of it; threads and tasks drive it alike.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from policies.errors import ComptrollerError
from tests.faults.journal import Answer, Entry, Journal, described, entries
from tests.faults.plan import Operation, Plan, pack_of, units_of

TRIES: Final = 3


@dataclass(frozen=True)
class Call:
    """A method of a Comptroller with its arguments; `hosted`: in a host's session, and what the host then does."""

    method: str
    kwargs: dict[str, Any]
    args: tuple[Any, ...] = ()
    hosted: Literal["commit", "rollback"] | None = None

    def on(self, comptroller: Any) -> Any:
        return getattr(comptroller, self.method)(*self.args, **self.kwargs)


@dataclass(frozen=True)
class Hosted:
    """What an admission in a host's session came to. `how`: what became of the host's transaction."""

    answer: object
    how: Literal["committed", "rolled back", "lost"]


@dataclass
class Lane:
    """Goes on where its journal ends. `open_breakers`: says whether Redis is given up for the moment."""

    name: str
    plan: Plan
    path: Path
    open_breakers: Callable[[], bool]
    done: Callable[[int], None]
    _grants: dict[tuple[str, str], str] = field(default_factory=dict)
    _lots: dict[str, str] = field(default_factory=dict)
    _number: int = 0
    _attempt: int = 0
    _answer: Answer = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in entries(self.path):
            self._remember(entry.account, entry.key, entry.answer or {})
            ended = entry.answer is not None and not self._again(entry)
            self._number = entry.number + 1 if ended else entry.number
            self._attempt = 0 if ended else entry.attempt + 1

    def calls(self, until: int) -> Iterator[Call]:
        """Yield the calls of all operations before number `until`. Each must be `heard` before the next."""
        with Journal(self.path) as journal:
            while self._number < until:
                operation = self.plan.operation(self._number)
                call = self._call(operation)
                if call is not None:
                    yield from self._tried(journal, operation, call)
                self._number, self._attempt = self._number + 1, 0
                self.done(self._number)

    def heard(self, answer: object) -> None:
        """Take what the last call brought: an answer, or the exception that it raised."""
        match answer:
            case ComptrollerError():
                told = {"error": type(answer).__name__, "retryable": answer.retryable}
                self._answer = {**told, "said": str(answer)[:200]}
            case Exception():
                self._answer = {"crash": "".join(traceback.format_exception(answer))}
            case Hosted():
                self._answer = {**described(answer.answer), "host": answer.how}
            case _:
                self._answer = described(answer)
        if self.open_breakers():
            self._answer["open"] = True

    def _tried(self, journal: Journal, operation: Operation, call: Call) -> Iterator[Call]:
        while True:
            said = {
                "lane": self.name,
                "number": self._number,
                "attempt": self._attempt,
                "kind": operation.kind,
                "account": operation.account,
                "key": operation.key,
                "shared": operation.shared,
            }
            journal.write(**said)
            yield call
            journal.write(answer=self._answer)
            self._remember(operation.account, operation.key, self._answer)
            if not self._again(Entry(**said, answer=self._answer)):  # type: ignore[arg-type]
                return
            self._attempt += 1

    @staticmethod
    def _again(entry: Entry) -> bool:
        """Whether a host would ask again: what went wrong may help itself, or nobody knows what became of it."""
        answer = entry.answer or {}
        unsure = answer.get("retryable", False) or answer.get("host") == "lost"
        return unsure and entry.attempt + 1 < TRIES

    def _remember(self, account: str, key: str, answer: Answer) -> None:
        if "allocations" in answer and answer.get("host", "committed") == "committed":
            self._grants[account, key] = answer["grant"]
        elif "lot" in answer:
            self._lots[key] = answer["lot"]

    def _call(self, operation: Operation) -> Call | None:
        """Return the call of an operation; None: it is about a grant or a lot that did not come to be."""
        account, key = operation.account, operation.key
        match operation.kind:
            case "admit" | "replay" | "commit" | "rollback":
                return _admit(operation)
            case "conflict":  # with a key that has brought a grant: any other is still free
                return _admit(operation) if (account, key) in self._grants else None
            case "ping":
                asked = {"account": account, "operation": "ping", "plan": account, "key": key}
                return Call("admit", asked)
            case "look":
                return Call("balance", {}, (account,))
            case "buy":
                return Call("record_purchase", {"pack": pack_of(key), "reference": key}, (account,))
            case "give":
                return Call(
                    "add_credits", {"units": 1 + len(key) % 3, "reference": key}, (account,)
                )
            case "refund":
                lot = self._lots.get(key)
                asked = {"reference": f"back-{key}"}
                return None if lot is None else Call("refund_lot", asked, (lot,))
            case _:
                grant = self._grants.get((account, key))
                return None if grant is None else _end(operation, grant, self._number)


def _admit(operation: Operation) -> Call:
    account, key = operation.account, operation.key
    units = units_of(account, key)
    if operation.kind == "conflict":
        units = units % 9 + 1 if units % 9 + 1 != units else units + 1
    asked = {
        "account": account,
        "operation": "clip",
        "plan": account,
        "attributes": {"n": units},
        "key": key,
    }
    match operation.kind:
        case "commit" | "rollback" as then:
            return Call("admit", asked, hosted=then)
        case _:
            return Call("admit", asked)


def _end(operation: Operation, grant: str, number: int) -> Call:
    match operation.kind:
        case "settle":
            delivered = {"n": 1} if number % 4 == 0 else None
            return Call("settle", {"gpu_seconds": number % 7, "delivered": delivered}, (grant,))
        case "release":
            reason = "moderated" if number % 5 == 0 else "failed"
            return Call("release", {"reason": reason, "gpu_seconds": number % 7}, (grant,))
        case "start":
            return Call("start", {}, (grant,))
        case _:
            return Call("extend", {"by": timedelta(seconds=20 + number % 60)}, (grant,))
