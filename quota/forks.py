"""A forked child starts anew: it shares no connection with its parent, and inherits neither locks nor threads.

A pre-forking server opens what it needs before it forks. Two processes on one connection read each other's
answers, a lock that another thread held at that instant is never released, and a thread is simply not there.
"""

from __future__ import annotations

import os
from typing import Any, Final
from weakref import WeakSet


class Forkable:
    """What has to start anew in a child, for as long as it lives."""

    def starts_anew_in_children(self) -> None:
        """Have `before_fork` and `after_fork` called from now on."""
        _LIVING.add(self)

    def before_fork(self) -> None:
        """Close what must not even be inherited. Runs in the parent, which goes on afterwards."""

    def after_fork(self) -> None:
        """Let go of the parent's connections, locks and threads. Runs in the child, before anything else."""


_LIVING: Final[WeakSet[Forkable]] = WeakSet()
_ABANDONED: Final[list[Any]] = []


def abandon(inherited: object) -> None:
    """Keep what is the parent's for ever: were it let go, it would say goodbye on the parent's own connection."""
    _ABANDONED.append(inherited)


def _in_parent() -> None:
    for one in list(_LIVING):
        one.before_fork()


def _in_child() -> None:
    for one in list(_LIVING):
        one.after_fork()


os.register_at_fork(before=_in_parent, after_in_child=_in_child)
