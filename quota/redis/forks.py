"""A forked child starts anew: it shares no socket with its parent and inherits no held lock.

Pre-forking servers open their clients before they fork. Two processes that write to one socket
would read each other's replies.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """What has to start anew in a child."""

    def after_fork(self) -> None:
        """Forget the parent's sockets and locks. Runs in the child, before anything else."""


_living: weakref.WeakSet[Forkable] = weakref.WeakSet()


def start_anew_in_children(one: Forkable) -> None:
    """Have `one.after_fork()` called in every child, for as long as `one` lives."""
    _living.add(one)


def _in_child() -> None:
    for one in list(_living):
        one.after_fork()


os.register_at_fork(after_in_child=_in_child)
