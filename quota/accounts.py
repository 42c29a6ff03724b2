"""An account's settings: plan, time zone, paid use, freezing, forgetting. Each change is a record of its book."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, delete, select, update

from billing.books import BookState, lock_book, open_book, save_book, zones_text
from billing.draft import Draft
from billing.posting import post, remember
from billing.sql import Db, Statement
from billing.stripe.purchases import forget_buyer
from billing.tables import ACCOUNT_NAMES, ERASABLES
from policies.errors import InvalidRequest
from policies.instants import zone_named
from policies.suggest import shown
from policies.units import MINOR_MAX, whole
from policies.window import Zones
from quota.ask import ATTRIBUTES_MAX, name, text
from quota.clock import Clock
from quota.dues import post_dues
from quota.tables import DENIALS
from quota.top_ups import switch_off

PAID_USES: Final = ("auto", "ask", "never")
ZONE_CHANGES_MAX: Final = 200
CAP_PERIODS: Final = ("day", "week", "month")

_TAGS: Final = Statement(
    update(ACCOUNT_NAMES)
    .where(ACCOUNT_NAMES.c.book_id == bindparam("of_book"))
    .values(tags=bindparam("new_tags"))
)
_READ_TAGS: Final = Statement(
    select(ACCOUNT_NAMES.c.tags).where(ACCOUNT_NAMES.c.book_id == bindparam("book_id"))
)
_FORGET_NAME: Final = Statement(
    delete(ACCOUNT_NAMES).where(ACCOUNT_NAMES.c.book_id == bindparam("of_book"))
)
_FORGET_VALUES: Final = Statement(
    delete(ERASABLES).where(ERASABLES.c.book_id == bindparam("of_book"))
)
_FORGET_DENIALS: Final = Statement(
    delete(DENIALS).where(DENIALS.c.account == bindparam("of_account"))
)


def lock_account(db: Db, account: str, clock: Clock) -> tuple[BookState, datetime]:
    """Lock an account's book, opening one where there is none, and post what is due. Returns it and its time.

    The clock is read under the lock, so that nothing is dated before what somebody has read meanwhile.
    """
    while (book := lock_book(db, account)) is None:
        now = clock()
        opened = open_book(db, account, now)
        if opened is not None:
            return opened, now
    now = max(clock(), book.at)
    post_dues(db, book, now)
    return book, now


def set_plan(db: Db, book: BookState, plan: str, now: datetime) -> None:
    """Put the account on a plan."""
    if book.plan != plan:
        change_plan(db, book, plan, now)
    save_book(db, book)


def change_plan(db: Db, book: BookState, plan: str | None, now: datetime) -> None:
    """Post that the account is on another plan. None: on the default one."""
    book.plan = plan
    _record(db, book, "plan", {"plan": plan}, now)


def set_zone(db: Db, book: BookState, zone: str, now: datetime) -> None:
    """Change the account's time zone: in force when the current window ends.

    Raises:
        InvalidRequest: there is no such zone, or it was changed too often.
    """
    zone_named(name(zone, "timezone"))
    if book.zones.latest == zone:
        save_book(db, book)
        return
    if len(book.zones.changes) >= ZONE_CHANGES_MAX:
        raise InvalidRequest(
            f"the time zone was changed {ZONE_CHANGES_MAX} times within two years: no more"
        )
    untouched = book.seq == 0 and not book.zones.changes
    book.zones = Zones(zone) if untouched else book.zones.changed(now, zone)
    _record(db, book, "zone", {"zones": json.loads(zones_text(book.zones))}, now)
    save_book(db, book)


def set_tags(db: Db, book: BookState, tags: object) -> None:
    """Replace the account's tags. They are for people, and no part of the chain.

    Raises:
        InvalidRequest: they are no mapping of short texts.
    """
    if not isinstance(tags, Mapping) or len(tags) > ATTRIBUTES_MAX:
        raise InvalidRequest(f"tags must be a mapping of at most {ATTRIBUTES_MAX} names to texts")
    checked = {
        name(key, "a tag's name"): text(value, f"tag `{key}`") for key, value in tags.items()
    }
    db.run(_TAGS, of_book=book.id, new_tags=json.dumps(checked, sort_keys=True))


def tags_of(db: Db, book_id: int) -> dict[str, str]:
    """Return an account's tags."""
    row = db.row(_READ_TAGS, book_id=book_id)
    return {} if row is None else dict(json.loads(row[0]))


def set_paid_use(
    db: Db,
    book: BookState,
    paid_use: str,
    spend_cap_minor: int | None,
    spend_cap_per: str,
    now: datetime,
) -> None:
    """Set whether credits may be used, and the most they may cost per calendar day, week or month, in minor units.

    Raises:
        InvalidRequest: a value is not allowed.
    """
    if paid_use not in PAID_USES:
        raise InvalidRequest(
            f"paid use must be one of {', '.join(PAID_USES)}, not {shown(paid_use)}"
        )
    if spend_cap_per not in CAP_PERIODS:
        raise InvalidRequest(
            f"spend_cap_per must be one of {', '.join(CAP_PERIODS)}, not {shown(spend_cap_per)}"
        )
    cap = (
        None
        if spend_cap_minor is None
        else whole(spend_cap_minor, "spend_cap_minor", most=MINOR_MAX)
    )
    per = None if cap is None else spend_cap_per
    if (book.paid_use, book.spend_cap_minor, book.spend_cap_per) != (paid_use, cap, per):
        book.paid_use, book.spend_cap_minor, book.spend_cap_per = paid_use, cap, per  # type: ignore[assignment]
        _record(
            db,
            book,
            "paid_use",
            {"paid_use": paid_use, "spend_cap_minor": cap, "spend_cap_per": per},
            now,
        )
    save_book(db, book)


def set_frozen(db: Db, book: BookState, reason: str | None, now: datetime) -> None:
    """Freeze the account, which denies every request, or unfreeze it (no reason). Open grants run on."""
    hashed = None if reason is None else book.hashed("text", text(reason, "reason"))
    if (book.frozen is None) != (reason is None):
        book.frozen = reason
        if reason is not None and hashed is not None:
            remember(db, book, {hashed: reason})
        _record(db, book, "unfreeze" if reason is None else "freeze", {"reason": hashed}, now)
    save_book(db, book)


def forget(db: Db, book: BookState, account: str, now: datetime) -> None:
    """Erase the account's name, its salt, and every name and free text in its book. The chain stays provable."""
    post_dues(db, book, now)
    switch_off(db, book, "the account was forgotten", now)
    if book.frozen is not None:
        book.frozen = "(erased)"
    _record(db, book, "forget", {}, now)
    save_book(db, book)
    for statement in (_FORGET_NAME, _FORGET_VALUES):
        db.run(statement, of_book=book.id)
    forget_buyer(db, book.id)
    forget_denials(db, account)


def forget_denials(db: Db, account: str) -> None:
    """Erase an account's denials."""
    db.run(_FORGET_DENIALS, of_account=account)


def _record(db: Db, book: BookState, kind: str, facts: Mapping[str, Any], now: datetime) -> None:
    post(db, book, Draft(kind, now, facts), now)
