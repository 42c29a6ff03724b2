"""What can go wrong between us and Redis: either SQL has to be asked, or the mistake is ours.

Redis answers denials; SQL makes every grant. So whatever keeps Redis from answering (a timeout, a
failover, no memory, a wrong password) is one and the same to the caller: decide by SQL alone. An
error that our own script made is the opposite: SQL would hide it, so it is raised loudly.
"""

from __future__ import annotations

import re
from typing import Any, Final

import hiredis

# Codes by which a healthy connection says that Redis cannot serve us now. No command that is
# answered with one of them was applied: Redis refuses it before it runs, or at its first write.
_ASK_SQL: Final = frozenset(
    """
    LOADING CLUSTERDOWN READONLY TRYAGAIN BUSY OOM MASTERDOWN MISCONF NOREPLICAS
    NOAUTH WRONGPASS NOPERM DENIED UNKILLABLE
    """.split()
)
_REDIRECTIONS: Final = frozenset({"MOVED", "ASK"})
# After these, the next connection may reach another server than this one: a name that now points
# to the new primary, or a password that was changed. (Without a place, Redis closes it anyway.)
_RECONNECT: Final = frozenset({"READONLY", "MASTERDOWN", "NOAUTH", "DENIED"})
_NO_PLACE: Final = "ERR max number of clients"
# What a stranger is told instead of NOAUTH where the command has more than ten parts, or a long one.
_STRANGER: Final = "ERR Protocol error: unauthenticated"
# NOPERM, of a command within the script: as Redis 7.2 and Valkey say it, and as Redis 7.0 does.
_FORBIDDEN: Final = ("ERR ACL failure in script", "ERR The user executing the script can't")
_KILLED: Final = re.compile(r"ERR .*\bSCRIPT KILL\b")
# Redis before 7 wraps the code of a command that fails inside a script.
_WRAPPED: Final = re.compile(r"ERR Error running script.*: -([A-Z]+) ", re.DOTALL)


class RedisUnavailable(Exception):  # noqa: N818 - a state of the world, not a mistake of the caller
    """Redis gave no answer that can be used: decide by SQL.

    `outcome_unknown` says that the command may have been applied all the same, because it was sent
    and no reply came.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        self.outcome_unknown = outcome_unknown
        super().__init__(message)


class ScriptFailed(Exception):  # noqa: N818 - says what happened, as its sibling does
    """Redis answered that our command is wrong: a bug of ours, which no other path may hide."""


def code_of(reply: hiredis.ReplyError) -> str:
    """Return the first word of an error reply, `NOSCRIPT` or `MOVED`."""
    text = str(reply)
    wrapped = _WRAPPED.match(text)
    return wrapped[1] if wrapped else text.partition(" ")[0]


def is_failure(reply: hiredis.ReplyError) -> bool:
    """Whether an error reply means that Redis cannot serve us now."""
    text = str(reply)
    if code_of(reply) in _ASK_SQL or text.startswith((_NO_PLACE, _STRANGER, *_FORBIDDEN)):
        return True
    return bool(_KILLED.match(text))


def calls_for_reconnect(reply: hiredis.ReplyError) -> bool:
    """Whether the next command should go over a new connection."""
    return code_of(reply) in _RECONNECT or str(reply).startswith((_NO_PLACE, _STRANGER))


def result(reply: Any) -> Any:
    """Return a reply that is an answer.

    Raises:
        RedisUnavailable: it is an error by which Redis says that it cannot serve us now.
        ScriptFailed: it is any other error.
    """
    if isinstance(reply, hiredis.ReplyError):
        raise as_exception(reply)
    return reply


def as_exception(reply: hiredis.ReplyError) -> RedisUnavailable | ScriptFailed:
    """Return what to raise for an error reply."""
    if code_of(reply) in _REDIRECTIONS:  # a client of a Cluster follows them
        return RedisUnavailable("this redis is a node of a cluster: write `redis+cluster://...`")
    if code_of(reply) == "NOAUTH" or str(reply).startswith(_STRANGER):
        return RedisUnavailable(f"redis wants a login, which its URL does not give: {reply}")
    if is_failure(reply):
        return RedisUnavailable(f"redis cannot serve this now: {reply}")
    return ScriptFailed(f"redis refused our command: {reply}")


def as_result(reply: Any) -> Any | Exception:
    """Return a reply; an error reply as the exception that `result` raises for it."""
    return as_exception(reply) if isinstance(reply, hiredis.ReplyError) else reply


def is_unknown_script(reply: Any) -> bool:
    """Whether a reply says that the script is not cached: it did not run."""
    return isinstance(reply, hiredis.ReplyError) and code_of(reply) == "NOSCRIPT"


def is_refusal(error: Exception) -> bool:
    """Whether nobody listens at an address: one attempt is proof."""
    return isinstance(error, (ConnectionRefusedError, FileNotFoundError))


def reason(error: Exception, timeout_seconds: float) -> str:
    """Return why a connection failed, in words; a timeout says how many seconds it waited."""
    if isinstance(error, (TimeoutError, BlockingIOError)):  # the latter from the kernel's timeout
        return f"nothing within {timeout_seconds:g} seconds"
    return str(error) or type(error).__name__


def closed() -> RedisUnavailable:
    """Return the error for a call after `close`."""
    return RedisUnavailable("this client of redis is closed")


def not_asked(address: str) -> RedisUnavailable:
    """Return the error for a call that an open circuit breaker keeps from the network."""
    return RedisUnavailable(f"redis at {address} was away a moment ago: not asked")


def refused_greeting(address: str, name: str, reply: hiredis.ReplyError) -> RedisUnavailable:
    """Return the error for a login or a database that Redis refused.

    It says the code alone: the text of such a reply can repeat what was sent, a password.
    """
    return RedisUnavailable(f"redis at {address} refused {name} ({code_of(reply)})")
