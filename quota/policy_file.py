"""The policy set in force, reloaded when its file changes: policies change without a deploy."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Final, Protocol

from policies.errors import AccountBusy, InvalidRequest, PolicyError
from policies.policy_set import PolicySet
from quota.clock import monotonic_seconds
from quota.forks import Forkable

LOOK_SECONDS: Final = 1.0
"""How often, at most, the file is looked at."""

Stamp = tuple[int, int, int]


class OnChange(Protocol):
    """What is done with a policy set before it comes into force."""

    def __call__(self, policy_set: PolicySet, *, waits: bool = True) -> None:
        """Keep it. `waits`: for a lock that somebody else holds."""


class PolicyFile(Forkable):
    """The policy set in force. A changed file that has errors leaves the old one in force, and `problem` says why."""

    def __init__(self, policies: str | Path | PolicySet, *, on_change: OnChange) -> None:
        """Load a policy file, or take a policy set as it is.

        Raises:
            PolicyError: the file cannot be read, or something in it is wrong.
            InvalidRequest: it is neither a path nor a policy set.
        """
        if not isinstance(policies, (str, Path, PolicySet)):
            raise InvalidRequest(
                f"policies must be a policy file's path or a PolicySet, not `{policies!r:.60}`"
            )
        if isinstance(policies, str) and "\n" in policies:
            raise InvalidRequest(
                "policies must be a policy file's path: hand its text over as PolicySet.parse(text)"
            )
        self._path: Final = None if isinstance(policies, PolicySet) else Path(policies)
        self._on_change = on_change
        self._guard = threading.Lock()
        self._looked = monotonic_seconds()
        self._stamp = _stamp(self._path)
        self.problem: str | None = None
        self.current: PolicySet = (
            policies if isinstance(policies, PolicySet) else PolicySet.load(policies)
        )
        self.starts_anew_in_children()

    def after_fork(self) -> None:
        """Let go of a lock that another thread of the parent may have held."""
        self._guard = threading.Lock()

    def latest(self) -> PolicySet:
        """Return the policy set in force, after a look at the file if the last one was a second ago."""
        if self._path is None or monotonic_seconds() - self._looked < LOOK_SECONDS:
            return self.current
        if self._guard.acquire(blocking=False):
            try:
                # A caller may hold the database's lock itself, in the host's session: then the next look is in time.
                with contextlib.suppress(AccountBusy):
                    self._look(waits=False)
            finally:
                self._guard.release()
        return self.current

    def reload(self) -> PolicySet:
        """Look at the file now.

        Raises:
            PolicyError: it has errors; the old policy set stays in force.
        """
        with self._guard:
            self._stamp = None
            self._look(waits=True)
        if self.problem is not None:
            raise PolicyError(self.problem.split("\n"))
        return self.current

    def _look(self, *, waits: bool) -> None:
        self._looked = monotonic_seconds()
        stamp = _stamp(self._path)
        if self._path is None or stamp == self._stamp:
            return
        try:
            fresh = PolicySet.load(self._path)
            if fresh.version != self.current.version:
                self._on_change(fresh, waits=waits)
        except PolicyError as error:
            self._stamp, self.problem = stamp, str(error)
            return
        self.current, self._stamp, self.problem = fresh, stamp, None


def _stamp(path: Path | None) -> Stamp | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
