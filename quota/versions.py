"""Every policy set that was ever used, stored by its version, so that old grants can be settled and explained."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sqlalchemy import bindparam, select

from billing.sql import Db, Statement, insert_once
from policies.errors import InvalidRequest
from policies.policy_set import PolicySet
from quota.tables import POLICY_VERSIONS

_READ: Final = Statement(
    select(POLICY_VERSIONS.c.content).where(POLICY_VERSIONS.c.version == bindparam("version"))
)
_HAS: Final = Statement(
    select(POLICY_VERSIONS.c.version).where(POLICY_VERSIONS.c.version == bindparam("version"))
)
_WRITE: Final = insert_once(POLICY_VERSIONS)


def store(db: Db, policy_set: PolicySet) -> None:
    """Keep a policy set under its version."""
    if not is_stored(db, policy_set.version):
        db.run(_WRITE, version=policy_set.version, content=policy_set.canonical)


def is_stored(db: Db, version: str) -> bool:
    """Whether a version is kept."""
    return bool(db.rows(_HAS, version=version))


def stored(db: Db, version: str, today: PolicySet | None = None) -> PolicySet:
    """Return the policy set of a version. `today`: the one in force, which need not be read if it is that.

    Raises:
        InvalidRequest: it was never used here.
    """
    if today is not None and version == today.version:
        return today
    row = db.row(_READ, version=version)
    if row is None:
        raise InvalidRequest(f"policy version `{version:.16}` was never used in this database")
    return _parsed(row[0])


@lru_cache(maxsize=64)
def _parsed(content: str) -> PolicySet:
    return PolicySet.from_canonical(content)
