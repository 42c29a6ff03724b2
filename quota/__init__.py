"""Admission in real time: limits and books joined in one step.

    from quota import Comptroller

The way of one request: `engine` -> `methods.requests` -> `admission` (look, lock, dues, load, decide, write);
the rule that granted or denied it is in `policies.waterfall` and the policy's own module in `policies.kinds`.
"""

from billing.stripe.settings import StripeSettings
from policies.errors import (
    AccountBusy,
    ComptrollerError,
    DeadlinePassed,
    GrantEnded,
    IdempotencyConflict,
    InvalidRequest,
    InvalidSignature,
    PaymentNotConfigured,
    PaymentRefused,
    PaymentUnavailable,
    PolicyError,
    SchemaMismatch,
    StaleTransaction,
    StoreUnavailable,
    UnknownGrant,
    UnknownLot,
    UnknownPurchase,
)
from quota.aio import AsyncComptroller
from quota.engine import Comptroller
from quota.grants import Decision, Denial, Denied, Ending, Grant, Job

__all__ = [
    "AccountBusy",
    "AsyncComptroller",
    "Comptroller",
    "ComptrollerError",
    "DeadlinePassed",
    "Decision",
    "Denial",
    "Denied",
    "Ending",
    "Grant",
    "GrantEnded",
    "IdempotencyConflict",
    "InvalidRequest",
    "InvalidSignature",
    "Job",
    "PaymentNotConfigured",
    "PaymentRefused",
    "PaymentUnavailable",
    "PolicyError",
    "SchemaMismatch",
    "StaleTransaction",
    "StoreUnavailable",
    "StripeSettings",
    "UnknownGrant",
    "UnknownLot",
    "UnknownPurchase",
]
