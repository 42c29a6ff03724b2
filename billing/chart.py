"""The chart of accounts: what every ledger account of a book is called, and in which asset it is kept.

Three kinds of asset, never mixed: credits (`CREDIT`), money (one asset per currency) and GPU cost (`USD.micro`).
Each book has its own accounts, so that no row is shared between customers; platform totals are sums over books.
Accounts have readable ids: `lot:3` holds lot 3's units, `deferred:3` its unearned money, `revenue:usd` what was earned.
"""

from __future__ import annotations

from typing import Final

from policies.fields import minor_digits

CREDIT: Final = "CREDIT"
GPU: Final = "USD.micro"
GPU_SCALE: Final = 6

ISSUED: Final = "issued"
CONSUMED: Final = "consumed"
EXPIRED: Final = "expired"
REVOKED: Final = "revoked"
UNIT_ACCOUNTS: Final = (ISSUED, CONSUMED, EXPIRED, REVOKED)

CASH: Final = "cash"
REVENUE: Final = "revenue"
BREAKAGE: Final = "breakage"
REFUNDED: Final = "refunded"
MONEY_ACCOUNTS: Final = (CASH, REVENUE, BREAKAGE, REFUNDED)
"""What a book opens in a currency with its first lot."""

CLEARING: Final = "stripe_clearing"
BANK: Final = "bank"
TAX: Final = "tax_payable"
FEES: Final = "fees"
RETURNED: Final = "returned"
DISPUTED: Final = "dispute_receivable"
CHARGEBACK_LOSS: Final = "chargeback_loss"
DEFERRED_PLAN: Final = "deferred_plan"
"""What buyers of plans have paid and has not been earned yet: by currency, not by lot."""
PAYMENT_ACCOUNTS: Final = (
    *(CLEARING, BANK, TAX, FEES, RETURNED, DISPUTED),
    *(CHARGEBACK_LOSS, DEFERRED_PLAN),
)
"""What a book opens in a currency with its first payment through Stripe, beside the others."""

GPU_ACCRUED: Final = "gpu_accrued"
GPU_DELIVERED: Final = "gpu_delivered"
GPU_FAILED: Final = "gpu_failed"
GPU_UNREPORTED: Final = "gpu_unreported"
GPU_LATE: Final = "gpu_late"
GPU_CRASHED: Final = "gpu_crashed"
GPU_ACCOUNTS: Final = (
    GPU_ACCRUED,
    GPU_DELIVERED,
    GPU_FAILED,
    GPU_UNREPORTED,
    GPU_LATE,
    GPU_CRASHED,
)

BOOK_ACCOUNTS: Final = (
    *((account, CREDIT) for account in UNIT_ACCOUNTS),
    *((account, GPU) for account in GPU_ACCOUNTS),
)
"""The accounts that every book opens with, and their assets."""


def asset_scale(asset: str) -> int:
    """Return how many decimal digits one whole of the asset has in its integers."""
    if asset == CREDIT:
        return 0
    return GPU_SCALE if asset == GPU else minor_digits(asset)


def money(account: str, currency: str) -> str:
    """Return the id of a money account in a currency."""
    return f"{account}:{currency}"


def lot_units(number: int) -> str:
    """Return the id of the account that holds a lot's units."""
    return f"lot:{number}"


def lot_deferred(number: int) -> str:
    """Return the id of the account that holds a lot's unearned money, in minor units."""
    return f"deferred:{number}"
