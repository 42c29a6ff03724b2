"""What every group of methods stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from policies.policy_set import PolicySet
    from quota.clock import Clock
    from quota.denials import DenialLog
    from quota.policy_file import PolicyFile
    from quota.prefilter.front import Front
    from quota.stores.base import Store

HostSession = Session | AsyncSession
"""The host's own session: a Session for Comptroller, an AsyncSession for AsyncComptroller."""


class Methods:
    """The parts that a Comptroller is made of."""

    _policy_file: PolicyFile
    _db: Store
    _clock: Clock
    _denials: DenialLog
    _front: Front | None

    @property
    def policies(self) -> PolicySet:
        """The policy set in force."""
        return self._policy_file.latest()
