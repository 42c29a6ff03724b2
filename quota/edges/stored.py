"""The policies that a database used last: enough to read its books where no policy file is named."""

from __future__ import annotations

from contextlib import closing
from typing import Final

from sqlalchemy import literal_column, select

from billing.sql import Statement
from policies.errors import SchemaMismatch
from policies.policy_set import PolicySet
from quota.stores.opening import open_store
from quota.tables import GRANTS, POLICY_VERSIONS
from quota.versions import stored

_GRANT: Final = GRANTS
_VERSION: Final = POLICY_VERSIONS
_LATEST: Final = Statement(
    select(_GRANT.c.policy_version).order_by(_GRANT.c.at.desc()).limit(literal_column("1"))
)
_ANY: Final = Statement(select(_VERSION.c.version).limit(literal_column("1")))


def latest_policies(database: str) -> PolicySet | None:
    """Return the policy set of the latest grant, or else any that was ever used; None if none was.

    Raises:
        SchemaMismatch: the database has another schema than this version's.
        StoreUnavailable: the database cannot be read.
    """
    with closing(open_store(database)) as store:
        store.migrate("check")
        with store.reading() as db:
            row = db.row(_LATEST) or db.row(_ANY)
            return None if row is None else stored(db, str(row[0]))


__all__ = ["SchemaMismatch", "latest_policies"]
