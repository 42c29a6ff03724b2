"""Scenarios as tables: what happens on the left, and on the right how purchase, units and books stand after it.

    pay        | status paid, units 10, clearing 4.00, deferred 4.00

The right side names what has changed, as it stands now; what it does not name must be as it was. Money is written in
the purchase's currency. Each account of money is shown with the sign that it usually has: what we owe or have earned is
positive there, and so is what we have or have lost. `clearing` must also be what lies at Stripe. After each line the
backend hears of all that Stripe has sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from billing.placement import placed
from policies.fields import minor_digits
from quota.sales import Checkout, PurchaseView
from tests.stripe.shop import POLICIES, URLS, Shop, opened

NAMES: Final = {
    "stripe_clearing": "clearing",
    "tax_payable": "tax",
    "dispute_receivable": "receivable",
    "chargeback_loss": "loss",
}
CREDITED: Final = frozenset({"deferred", "revenue", "breakage", "refunded", "tax"})
HELD: Final = "SELECT coalesce(sum(units_held), 0) FROM comptroller_lot_balance"
PLAIN: Final = frozenset({"units", "held"})
START: Final = {"status": "none", "units": 0, "held": 0, "generates": "no"}
POLICY: Final = "policy "


def play(table: str, database: str = "sqlite://") -> None:
    """Run a table from top to bottom. The books must be sound in the end, and Stripe must have no complaints."""
    lines = _lines(table)
    policies = POLICIES + "\n".join(
        line.removeprefix(POLICY) for line, _ in lines if line.startswith(POLICY)
    )
    with opened(database, policies) as shop:
        course = Course(shop)
        expected: dict[str, Any] = dict(START)
        for what, then in lines:
            if what.startswith(POLICY):
                continue
            course.happens(what)
            expected |= dict(course.read(then))
            assert written(course.standing()) == written(expected), what
            assert course.clearing_minor() == course.at_stripe_minor(), what


def written(standing: dict[str, Any]) -> str:
    """Write down how things stand, so that two of them are easily compared."""
    return ", ".join(f"{name} {value}" for name, value in sorted(standing.items()) if value != 0)


def _lines(table: str) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for line in table.strip().splitlines():
        what, _, then = (part.strip() for part in line.partition("|"))
        if what:
            lines.append((what, then))
        else:  # the right side goes on
            lines[-1] = lines[-1][0], f"{lines[-1][1]}, {then}"
    return lines


class Course:
    """One buyer's course of events in a shop. Each `do_` method is a word that a table's line may begin with."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.stripe = shop, shop.stripe
        self.checkout: Checkout | None = None
        self.currency = "usd"
        self.open: list[str] = []
        self.asked = 0

    def happens(self, line: str) -> None:
        """Do what a line says, and hear of what Stripe says of it."""
        word, *rest = line.split()
        getattr(self, f"do_{word}")(*rest)
        for outcome in self.shop.hear():
            assert outcome.status in ("done", "ignored"), outcome

    # --- how things stand -------------------------------------------------------------------

    def read(self, then: str) -> Iterator[tuple[str, Any]]:
        """Read the right side of a line."""
        for part in then.split(",") if then else ():
            name, value = part.split()
            if name in PLAIN:
                yield name, int(value)
            else:
                yield name, value if value.isalpha() else Decimal(value)

    def standing(self) -> dict[str, Any]:
        """How purchase, units and books stand now."""
        balance = self.shop.comptroller.balance("ann")
        decision = self.shop.comptroller.estimate(account="ann", operation="clip")
        found: dict[str, Any] = {
            "status": "none" if self.checkout is None else self.bought.status,
            "units": balance.credits,
            "held": self._held(),
            "generates": "yes" if decision else "no",
        }
        for account, minor in self.shop.ledger().items():
            known = account.partition(":")[0]
            name = NAMES.get(known, known)
            sign = -1 if name in CREDITED else 1
            amount = Decimal(sign * minor).scaleb(-minor_digits(self.currency))
            found[name] = found.get(name, 0) + amount
        return found

    def clearing_minor(self) -> int:
        """What our books say lies at Stripe, in minor units."""
        ledger = self.shop.ledger()
        return sum(minor for name, minor in ledger.items() if name.startswith("stripe_clearing"))

    def at_stripe_minor(self) -> int:
        """What lies at Stripe, but for the fees of payments: their events do not tell them, reconciliation does."""
        rows = self.stripe.every("balance_transaction")
        paid = [row for row in rows if row["type"] in ("charge", "payment")]
        return sum(int(row["net"]) for row in rows) + sum(int(row["fee"]) for row in paid)

    def _held(self) -> int:
        """Units that jobs hold, or a dispute."""
        with self.shop.comptroller._db.reading() as db:
            cursor = db.driver.cursor()
            cursor.execute(placed(HELD, db.dialect))
            row = cursor.fetchone()
            assert row is not None
            return int(row[0])

    @property
    def bought(self) -> PurchaseView:
        assert self.checkout is not None
        return self.shop.comptroller.purchase(self.checkout.purchase_id)

    # --- what the buyer does ----------------------------------------------------------------

    def do_offer(self, pack: str, *options: str) -> None:
        """`offer ten in jpy codes taxed`: a checkout, in a currency, with promotion codes, with taxes."""
        if "in" in options:
            self.currency = options[options.index("in") + 1]
        self.checkout = self.shop.comptroller.checkout(
            "ann",
            pack=pack,
            currency=self.currency,
            promotion_codes="codes" in options,
            automatic_tax="taxed" in options,
            **URLS,
        )

    def do_pay(self, *options: str) -> None:
        """`pay`, `pay tax 0.33`, `pay code HALF`, `pay later`."""
        paid: dict[str, Any] = {}
        if "tax" in options:
            paid["tax"] = self._minor(options[options.index("tax") + 1])
        if "code" in options:
            paid["promotion_code"] = options[options.index("code") + 1]
        (self.stripe.pay_later if "later" in options else self.stripe.pay)(self._session, **paid)

    def do_clear(self) -> None:
        self.stripe.clear(self._session)

    def do_bounce(self) -> None:
        self.stripe.fail(self._session)

    def do_decline(self) -> None:
        self.stripe.decline(self._session)

    def do_abandon(self) -> None:
        self.stripe.expire(self._session)

    def do_use(self, units: str) -> None:
        self.asked += 1
        assert self.shop.use(int(units), f"use-{self.asked}")

    def do_start(self, units: str) -> None:
        """Have something generated that takes so many units, and takes its time."""
        self.asked += 1
        grant = self.shop.comptroller.admit(
            account="ann", operation="clip", attributes={"n": int(units)}, key=f"job-{self.asked}"
        )
        assert grant, grant
        self.open.append(grant.id)

    def do_deliver(self) -> None:
        self.shop.comptroller.settle(self.open.pop(0), gpu_seconds=100)

    def do_fail(self) -> None:
        self.shop.comptroller.release(self.open.pop(0), reason="failed", gpu_seconds=1)

    def do_wait(self, days: str, _: str) -> None:
        """Let so many days go by, and write down what falls due."""
        self.shop.clock.advance(timedelta(days=int(days)))
        self.shop.comptroller.sweep()

    # --- what the owner of the shop does ----------------------------------------------------

    def do_code(self, code: str, percent: str) -> None:
        """`code HALF 50%`: a promotion code."""
        client = self.stripe.client()
        coupon = client.v1.coupons.create({"percent_off": float(percent.rstrip("%"))})
        promotion = {"type": "coupon", "coupon": coupon.id}
        client.v1.promotion_codes.create({"promotion": promotion, "code": code})

    def do_reprice(self, amount: str) -> None:
        """Edit the price of the pack in the dashboard."""
        price = next(each for each in self.stripe.every("price") if each["active"])
        self.stripe.edit_price(price["id"], self._minor(amount))

    def do_refund(self, amount: str, how: str = "") -> None:
        """`refund 1.00`, `refund all`, `refund 1.00 pending`: in the dashboard."""
        minor = None if amount == "all" else self._minor(amount)
        self.stripe.refund(self._payment, minor, pending=how == "pending")

    def do_return(self, amount: str) -> None:
        """`return 1.00`, `return all`: by `comptroller.refund`."""
        assert self.checkout is not None
        minor = None if amount == "all" else self._minor(amount)
        self.shop.comptroller.refund(self.checkout.purchase_id, minor)

    # --- what banks do ----------------------------------------------------------------------

    def do_unrefund(self) -> None:
        """The latest refund fails."""
        self.stripe.fail_refund(self.stripe.every("refund")[-1]["id"])

    def do_inquire(self) -> None:
        self.stripe.dispute(self._charge, inquiry=True)

    def do_escalate(self) -> None:
        self.stripe.escalate(self._dispute)

    def do_dispute(self, amount: str = "all") -> None:
        self.stripe.dispute(self._charge, None if amount == "all" else self._minor(amount))

    def do_win(self, what: str = "") -> None:
        self.stripe.win(self._dispute, fee_returned=what == "fee")

    def do_lose(self) -> None:
        self.stripe.lose(self._dispute)

    # --- what these are made of -------------------------------------------------------------

    @property
    def _session(self) -> str:
        assert self.checkout is not None
        return self.checkout.session_id

    @property
    def _payment(self) -> str:
        return str(self.stripe.get(self._session)["payment_intent"])

    @property
    def _charge(self) -> str:
        return str(self.stripe.get(self._payment)["latest_charge"])

    @property
    def _dispute(self) -> str:
        return str(self.stripe.every("dispute")[-1]["id"])

    def _minor(self, amount: str) -> int:
        return int(Decimal(amount).scaleb(minor_digits(self.currency)))
