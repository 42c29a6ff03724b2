"""Checking records of lots and of the account's settings."""

from __future__ import annotations

from billing.books import zones_text
from billing.entries import Entry
from billing.purchases import draft_issue, draft_refund
from policies.window import Zones
from quota.again import zones_of
from quota.audit.state import LOT, BookAudit
from quota.dues import draft_lot_expiry


def check_issue(book: BookAudit, entry: Entry) -> None:
    """Check that a purchase, or credits given, bring one lot to life."""
    lot = entry.lots[0]
    book.same_draft(entry, draft_issue(lot, entry.kind, entry.at))


def check_refund(book: BookAudit, entry: Entry) -> None:
    """Check that a refund takes what was available of a lot."""
    number = entry.facts["lot"]
    lot = book.ledger.lots[number].lot
    if lot.refunded:
        book.say(entry, f"lot {number}", "not refunded before", "refunded before")
    draft, units, amount = draft_refund(lot, entry.facts["reference"], entry.at)
    said = (entry.facts["units"], entry.facts["refunded_minor"])
    book.same(entry, "units and money refunded", (units, amount), said)
    book.same_draft(entry, draft)


def check_lot_expiry(book: BookAudit, entry: Entry) -> None:
    """Check that what was available of a lot expired, at its time."""
    number = entry.facts["lot"]
    lot = book.ledger.lots[number].lot
    if lot.expires_at is None:
        book.say(entry, f"expiry of lot {number}", "never", entry.at)
        return
    at = max(lot.expires_at, lot.created_at, book.ledger.at or entry.at)
    book.same(entry, "instant of the expiry", at, entry.at)
    draft = draft_lot_expiry(book.lots_in_hand([number]), number, entry.at)
    book.same(entry, "what expired", dict(draft.facts), dict(entry.facts))
    book.same_draft(entry, draft)


def check_zone(book: BookAudit, entry: Entry) -> None:
    """Check that a change of time zone is added to those before it."""
    zones, before = zones_of(entry.facts["zones"]), book.settings.zones
    expected = Zones(zones.latest) if entry.seq == 1 else before.changed(entry.at, zones.latest)
    book.same(entry, "time zones of the account", zones_text(expected), zones_text(zones))
    book.settings.zones = zones


def check_paid_use(book: BookAudit, entry: Entry) -> None:
    """Take a change of paid use over."""
    book.settings.paid_use = entry.facts["paid_use"]
    book.settings.spend_cap_minor = entry.facts["spend_cap_minor"]
    book.settings.spend_cap_per = entry.facts["spend_cap_per"]


def check_freeze(book: BookAudit, entry: Entry) -> None:
    """Take freezing and unfreezing over, with the reason."""
    reason = entry.facts["reason"]
    book.settings.frozen = None if reason is None else book.text_of(reason)
    if reason is not None:
        book.needed[reason] = entry.seq


def check_forget(book: BookAudit, entry: Entry) -> None:
    """Take over that names and free text were erased."""
    book.forgotten = True
    book.same(entry, "facts", {}, dict(entry.facts))


def new_lots(book: BookAudit, entry: Entry) -> None:
    """Remember when a record's new lots fall due."""
    for lot in entry.lots:
        if lot.expires_at is not None:
            book.expires(LOT, lot.number, lot.expires_at)
