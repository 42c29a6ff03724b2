"""Every error that Comptroller raises, in one tree.

    ComptrollerError
    +-- PolicyError            the policy file is wrong; `.problems` lists all that is wrong with it
    +-- InvalidRequest         unknown operation, plan, attribute or value; nothing was changed
    |   +-- UnknownGrant       no such grant
    |   +-- UnknownLot         no such lot
    |   +-- UnknownPurchase    no such purchase
    +-- IdempotencyConflict    the key, reference or attempt was used before with other arguments
    +-- GrantEnded             the grant has ended; work on it must not start
    +-- Denied                 raised by `job` alone: everywhere else a denial is a value (it is in `quota.grants`)
    +-- DeadlinePassed         `not_after` is past; nothing was taken
    +-- AccountBusy            the account stayed locked past the timeout                  (retryable)
    +-- StaleTransaction       the host's transaction read before the lock was taken       (retryable)
    +-- StoreUnavailable       the database cannot be reached                              (retryable)
    +-- SchemaMismatch         the database has another schema than this version needs
    +-- InvalidSignature       a webhook that Stripe did not sign
    +-- PaymentRefused         Stripe answered that it will not do what it was asked
    +-- PaymentUnavailable     Stripe cannot be reached, or asks to come back later        (retryable)

A denial is a value, an error is misuse, bad configuration or a broken store. `retryable` says whether the
same call can succeed later without a change; keys make such a retry safe.
Messages are one line, lower-case, with the user's input in backticks, and say what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class ComptrollerError(Exception):
    """Base of every error of this library."""

    retryable: ClassVar[bool] = False


class PolicyError(ComptrollerError):
    """The policy file cannot be used. `problems` has one line for each thing that is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class InvalidRequest(ComptrollerError):  # noqa: N818 - the contract's name
    """The request names something unknown, or a value that is not allowed. Nothing was changed."""


class UnknownGrant(InvalidRequest):
    """There is no such grant."""


class UnknownLot(InvalidRequest):
    """There is no such lot."""


class UnknownPurchase(InvalidRequest):
    """There is no such purchase."""


class PaymentNotConfigured(InvalidRequest):
    """Selling needs a Stripe key or a webhook secret, and this process was given none. No buyer can mend that."""


class IdempotencyConflict(ComptrollerError):  # noqa: N818 - the contract's name
    """The key, reference or attempt was used before, with other arguments."""


class GrantEnded(ComptrollerError):  # noqa: N818 - the contract's name
    """The grant has ended, so its work must not run. `status` says how it ended."""

    def __init__(self, message: str, *, status: str) -> None:
        self.status = status
        super().__init__(message)


class DeadlinePassed(ComptrollerError):  # noqa: N818 - the contract's name
    """The instant after which nothing may be taken is past. Nothing was taken."""


class AccountBusy(ComptrollerError):  # noqa: N818 - the contract's name
    """The account stayed locked by somebody else past the timeout. Nothing was changed."""

    retryable = True


class StaleTransaction(ComptrollerError):  # noqa: N818 - the contract's name
    """The host's transaction had read before the account was locked: retry that whole transaction."""

    retryable = True


class StoreUnavailable(ComptrollerError):  # noqa: N818 - the contract's name
    """The database cannot be reached or written."""

    retryable = True


class SchemaMismatch(ComptrollerError):  # noqa: N818 - the contract's name
    """The database's schema is not the one this version works with."""


class InvalidSignature(ComptrollerError):  # noqa: N818 - the contract's name
    """The payload was not signed by the payment provider."""


class PaymentRefused(ComptrollerError):  # noqa: N818 - named after its kin
    """Stripe will not do what it was asked. `code` is Stripe's own word for why, where it gives one."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        self.code = code
        super().__init__(message)


class PaymentUnavailable(ComptrollerError):  # noqa: N818 - named after its kin
    """Stripe cannot be reached, or asks to come back later. Asking again is safe: it finds what was done already."""

    retryable = True


def in_one_line(error: Exception) -> str:
    """Say in one line what went wrong; of an error that is not meant for people, also which it is."""
    said = " ".join(str(error).split())
    told = isinstance(error, ValueError | ComptrollerError)
    return said if told else f"{type(error).__name__}: {said}"
