"""Policies decide: pure rules over values, without I/O, clock or randomness.

    document, yaml_text, checks       a policy file becomes a PolicySet, or a list of all that is wrong
    policy_set, operation, gpu_cost   what it holds, and its canonical content, whose hash is its version
    policy, kinds/*, registry         the classes of limits and sources, those of plug-ins included
    rules, waterfall, advice          what applies to a request, the decision, and what would help
    window, instants, state           which units count now, and what a decision reads
    diff, explain, json_schema        what changes for whom, what a request would take, and editors

One function decides: `decide(request, rules, circumstances, state, now)`.
"""

from policies.advice import Advice, advise
from policies.decision import Allocation, Decision, Finding, Offer, Price, Reason
from policies.errors import (
    AccountBusy,
    ComptrollerError,
    DeadlinePassed,
    GrantEnded,
    IdempotencyConflict,
    InvalidRequest,
    InvalidSignature,
    PolicyError,
    SchemaMismatch,
    StaleTransaction,
    StoreUnavailable,
    UnknownGrant,
    UnknownLot,
)
from policies.instants import Length
from policies.policy import Asked, Cap, Check, Limit, Policy, Source
from policies.policy_set import PolicySet
from policies.request import Circumstances, Request, SpendCap
from policies.state import (
    BudgetRead,
    History,
    LotView,
    OpenGrant,
    OpenRead,
    RateRead,
    Read,
    Readings,
    State,
    UsageRead,
    Use,
)
from policies.waterfall import decide
from policies.window import Window, Zones

__all__ = [
    "AccountBusy",
    "Advice",
    "Allocation",
    "Asked",
    "BudgetRead",
    "Cap",
    "Check",
    "Circumstances",
    "ComptrollerError",
    "DeadlinePassed",
    "Decision",
    "Finding",
    "GrantEnded",
    "History",
    "IdempotencyConflict",
    "InvalidRequest",
    "InvalidSignature",
    "Length",
    "Limit",
    "LotView",
    "Offer",
    "OpenGrant",
    "OpenRead",
    "Policy",
    "PolicyError",
    "PolicySet",
    "Price",
    "RateRead",
    "Read",
    "Readings",
    "Reason",
    "Request",
    "SchemaMismatch",
    "Source",
    "SpendCap",
    "StaleTransaction",
    "State",
    "StoreUnavailable",
    "UnknownGrant",
    "UnknownLot",
    "UsageRead",
    "Use",
    "Window",
    "Zones",
    "advise",
    "decide",
]
