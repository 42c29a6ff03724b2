"""The house rules. Each is a function from a source to its breaches: empty when it is kept.

A breach reads `path:line: what is wrong and what to do`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from tests.architecture.source import PACKAGES, Source

FUNCTION_LINES_MAX: Final = 70
FILE_LINES_MAX: Final = 400

Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

# --- length -------------------------------------------------------------------------------------


def too_long(source: Source) -> list[str]:
    """Functions over 70 lines, files over 400."""
    lines = len(source.text.splitlines())
    breaches = []
    if lines > FILE_LINES_MAX:
        breaches.append(f"{source.path}:1: {lines} lines, at most {FILE_LINES_MAX}: split it")
    for function in _functions(source.tree):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > FUNCTION_LINES_MAX:
            message = f"`{function.name}` has {length} lines, not {FUNCTION_LINES_MAX}: split it"
            breaches.append(_breach(source, function, message))
    return breaches


# --- purity -------------------------------------------------------------------------------------

PURE_THIRD_PARTY: Final = frozenset(
    {"pydantic", "pydantic_core", "yaml", "annotated_types", "typing_extensions"}
)
_EFFECTS: Final = frozenset(
    """
    asyncio concurrent ctypes ftplib getpass glob http importlib.resources logging mmap
    multiprocessing os pickle random sched secrets select selectors shelve shutil signal
    smtplib socket socketserver sqlite3 ssl subprocess sys tempfile threading time urllib
    """.split()
)
_EFFECT_CALLS: Final = frozenset({"open", "input", "print", "exec", "eval", "__import__"})
_EFFECT_METHODS: Final = frozenset(
    "read_text write_text read_bytes write_bytes urandom getrandom uuid1 uuid4".split()
)


def impure(source: Source, *, allowed: frozenset[str] = frozenset()) -> list[str]:
    """I/O, clock, randomness and floats, none of which has a place in a rule.

    `allowed` names effects that this one file is for. A `pathlib.Path` is a value; reading is not.
    """
    breaches = [
        _breach(source, node, f"imports `{name}`: pure code only computes")
        for node, name in _imports(source.tree)
        if not _may_import(name)
    ]
    effect_methods = _EFFECT_METHODS - allowed
    for node in ast.walk(source.tree):
        match node:
            case ast.Constant(value=float() | complex()):
                message = f"float literal `{node.value!r}`: use an int, Decimal or Fraction"
                breaches.append(_breach(source, node, message))
            case ast.Call(func=ast.Name(id="float" | "complex")):
                breaches.append(_breach(source, node, "makes a float: use an int or Decimal"))
            case ast.Call(func=ast.Name(id=name)) if name in _EFFECT_CALLS:
                breaches.append(_breach(source, node, f"calls `{name}`: pure code has no effects"))
            case ast.Attribute(attr=name) | ast.alias(name=name) if name in effect_methods:
                breaches.append(_breach(source, node, f"uses `{name}`: pure code has no effects"))
    return breaches + clock_reads(source)


def _may_import(name: str) -> bool:
    parts = name.split(".")
    if any(".".join(parts[:end]) in _EFFECTS for end in range(1, len(parts) + 1)):
        return False
    allowed = parts[0] in sys.stdlib_module_names or parts[0] in PURE_THIRD_PARTY
    return allowed or parts[0] in PACKAGES


# --- the clock ----------------------------------------------------------------------------------

_CLOCK_READS: Final = frozenset(
    """
    datetime.now datetime.utcnow datetime.today date.today dt.now dt.utcnow
    time.time time.time_ns time.gmtime time.localtime
    func.now func.current_timestamp func.current_date func.localtimestamp func.clock_timestamp
    """.split()
)


def clock_reads(source: Source) -> list[str]:
    """Places that ask what time it is, of the machine or of the database."""
    breaches = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            last = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if f"{last}.{node.attr}" in _CLOCK_READS:
                breaches.append(_breach(source, node, f"reads the clock by `{last}.{node.attr}`"))
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            breaches += [
                _breach(source, node, f"imports the clock read `time.{alias.name}`")
                for alias in node.names
                if f"time.{alias.name}" in _CLOCK_READS
            ]
    return breaches


# --- docstrings of what is exported -------------------------------------------------------------

_UNITS: Final = (
    (re.compile(r"(.*_)?micro_usd\Z"), re.compile(r"micro-?(dollar|usd)", re.IGNORECASE)),
    (re.compile(r"(.*_)?minor\Z"), re.compile(r"\b(minor|cents?)\b", re.IGNORECASE)),
    (re.compile(r"(.*_)?seconds\Z"), re.compile(r"\bseconds?\b", re.IGNORECASE)),
    (re.compile(r"units\Z"), re.compile(r"\bunits?\b", re.IGNORECASE)),
)


def undocumented(source: Source, name: str, errors: frozenset[str]) -> list[str]:
    """What the docstrings of an exported class or function leave out: all, a unit, or an error.

    `errors` holds the names of our exceptions. Names that are neither class nor function (type
    aliases, constants) have no docstring to check.
    """
    definition = next(
        (node for node in source.tree.body if getattr(node, "name", "") == name), None
    )
    if isinstance(definition, ast.ClassDef):
        breaches = _undocumented_class(source, definition, errors)
    elif isinstance(definition, Function):
        breaches = _undocumented_function(source, definition, name, errors)
    else:
        breaches = []
    return breaches


def _undocumented_class(source: Source, node: ast.ClassDef, errors: frozenset[str]) -> list[str]:
    breaches = []
    if not ast.get_docstring(node):
        breaches.append(_breach(source, node, f"public class `{node.name}` has no docstring"))
    for member in node.body:
        if isinstance(member, Function) and not member.name.startswith("_"):
            label = f"{node.name}.{member.name}"
            breaches += _undocumented_function(source, member, label, errors)
    return breaches


def _undocumented_function(
    source: Source, node: Function, label: str, errors: frozenset[str]
) -> list[str]:
    if {"overload", "setter", "deleter"} & {_last_name(d) for d in node.decorator_list}:
        return []
    docstring = ast.get_docstring(node)
    if not docstring:
        return [_breach(source, node, f"public `{label}` has no docstring")]
    arguments = node.args
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    breaches = [
        _breach(source, node, f"docstring of `{label}` does not name the unit of `{argument.arg}`")
        for argument in every
        for name, unit in _UNITS
        if name.match(argument.arg) and not unit.search(docstring)
    ]
    _, _, section = docstring.partition("Raises:")
    missing = sorted(name for name in _raised(node) & errors if name not in section)
    breaches += [
        _breach(source, node, f"`{label}` raises {name}, which its `Raises:` does not say")
        for name in missing
    ]
    return breaches


def _raised(function: Function) -> set[str]:
    """Names of the exceptions that this function raises itself."""
    raised = (node.exc for node in _own_nodes(function) if isinstance(node, ast.Raise) and node.exc)
    return {_last_name(exc.func if isinstance(exc, ast.Call) else exc) for exc in raised}


def error_names(every: Iterable[Source], root: str = "ComptrollerError") -> frozenset[str]:
    """Names of the root of our exceptions and of all classes below it."""
    bases = {
        node.name: {_last_name(base) for base in node.bases}
        for source in every
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    }
    names: set[str] = {root}
    while below := {name for name, above in bases.items() if above & names} - names:
        names |= below
    return frozenset(names)


# --- sleep, unfinished work, this machine -------------------------------------------------------


def sleeps(source: Source) -> list[str]:
    """Calls that wait: a test sets the clock."""
    return [
        _breach(source, node, "sleeps: set the clock instead")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and _last_name(node.func) in {"sleep", "sleep_for"}
    ]


# Each pattern has a letter in brackets, so that this file does not break its own rules.
_UNFINISHED: Final = re.compile("TOD[O]|FIXM[E]|XX[X]|NotImplementedErro[r]")
_MACHINE: Final = re.compile(
    r"/wor[k]/|/far[m]/|bash_job[s]|/roo[t]/|/opt/(pypi|wheels)"
    r"|--(extra-)?index-ur[l]|registry = \"|\"resolved\": \"http|pythonhoste[d]\.|pypi\.or[g]"
)


def unfinished(path: str, text: str) -> list[str]:
    """Marks of unfinished work."""
    return _lines_with(_UNFINISHED, path, text, "is unfinished: finish it or leave it out")


def of_this_machine(path: str, text: str) -> list[str]:
    """Paths of the machine that it was written on, and addresses of package registries."""
    return _lines_with(_MACHINE, path, text, "names a machine or a registry: leave it out")


# --- helpers ------------------------------------------------------------------------------------


def _lines_with(pattern: re.Pattern[str], path: str, text: str, message: str) -> list[str]:
    return [
        f"{path}:{number}: `{found[0]}` {message}"
        for number, line in enumerate(text.splitlines(), start=1)
        if (found := pattern.search(line))
    ]


def _breach(source: Source, node: ast.AST, message: str) -> str:
    return f"{source.path}:{getattr(node, 'lineno', 1)}: {message}"


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """Walk a function without the functions and classes defined inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _SCOPES):
            waiting.extend(ast.iter_child_nodes(node))


def _last_name(node: ast.AST) -> str:
    """Return `sleep` of both `sleep` and `time.sleep`; empty for anything that has no name."""
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
