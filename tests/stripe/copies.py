"""The same course of events, for many purchases: every id in it made another, and all of it signed again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from billing.stripe.signature import sign
from quota import Denial
from quota.offers import pack_offer
from quota.sales import PurchaseView
from tests.stripe.shop import Shop

ID = re.compile(r'"((?:cs_test|pi|re|du|dp|txn|ch|evt|pu|cus)_\w+)"')
OURS = ("account", "id", "session_id", "payment", "lot_id")


class Copies:
    """Makes copies of a course of events, each for a purchase of its own in one shop."""

    def __init__(self, shop: Shop, pack: str) -> None:
        self.shop, self.pack = shop, pack
        self.made = 0

    def of(self, events: Sequence[bytes], purchase: str, session: str) -> tuple[str, list[bytes]]:
        """Offer the pack to somebody new, and return who, with the events of that purchase."""
        self.made += 1
        account, suffix = f"u{self.made}", f"x{self.made}"
        offer, book_id, _ = self.shop.comptroller._offer(
            account, pack_offer(self.shop.comptroller.policies, self.pack, None)
        )
        session_id = f"{session}{suffix}"
        self.shop.comptroller._kept_customer(book_id, f"cus_{suffix}", None)
        self.shop.comptroller._offered(offer.id, session_id)

        def renamed(found: re.Match[str]) -> str:
            return f'"{offer.id}"' if found[1] == purchase else f'"{found[1]}{suffix}"'

        return account, [ID.sub(renamed, event.decode()).encode() for event in events]

    def take_in(self, payload: bytes, **options: Any) -> str:
        """Have the backend hear of an event. Returns what that did."""
        header = sign(payload, self.shop.stripe.webhook_secret, int(self.shop.clock().timestamp()))
        outcome = self.shop.comptroller.handle_stripe_event(payload, header, **options)
        assert outcome.status in ("done", "ignored"), outcome
        return outcome.effect

    def ending(self, account: str) -> dict[str, Any]:
        """All that the events have done to an account in the end, without the names of things."""
        comptroller = self.shop.comptroller
        (bought,) = comptroller.purchases(account)
        balance = comptroller.balance(account)
        lots = [(lot.units, lot.available, lot.held, lot.expires_at) for lot in balance.lots]
        return {
            "purchase": _nameless(bought),
            "units": balance.credits,
            "lots": lots,
            "ledger": self.shop.ledger(account),
            "paid use": _paid_use(self.shop, account),
        }


def payload_of(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()


def _nameless(bought: PurchaseView) -> dict[str, Any]:
    return {name: getattr(bought, name) for name in PurchaseView.__slots__ if name not in OURS}


def _paid_use(shop: Shop, account: str) -> str:
    decision = shop.comptroller.estimate(account=account, operation="clip")
    return str(decision.reason) if isinstance(decision, Denial) else "granted"
