"""How to reach Stripe, and whose events to believe. Secrets never show in representations."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from policies.errors import InvalidRequest

API_KEY: Final = "STRIPE_API_KEY"
WEBHOOK_SECRETS: Final = "STRIPE_WEBHOOK_SECRETS"
API_BASE: Final = "STRIPE_API_BASE"
API_KEY_FORM: Final = re.compile(r"[sr]k_(live|test)_[!-~]+")
SECRET: Final = re.compile(r"whsec_[!-~]+")
HOW: Final = (
    f"set {API_KEY} and {WEBHOOK_SECRETS} in the environment, "
    "or pass Comptroller.open(..., stripe=StripeSettings(...))"
)


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """The keys of one Stripe account, in one mode.

    Args:
        api_key: `sk_live_...`, `sk_test_...`, or a restricted `rk_...` key.
        webhook_secrets: `whsec_...` of the endpoint; several while one replaces another.
        api_base: another server than Stripe's, for tests.
    """

    api_key: str = field(repr=False)
    webhook_secrets: Sequence[str] = field(default=(), repr=False)
    api_base: str | None = None

    def __post_init__(self) -> None:
        # A line's end in it would be refused by the HTTP client, in an error that shows the key.
        if not API_KEY_FORM.fullmatch(str(self.api_key)):
            raise InvalidRequest(
                "the Stripe API key must begin with sk_live_, sk_test_, rk_live_ or rk_test_: "
                "copy the secret key, not the publishable one, without spaces or line ends"
            )
        if isinstance(self.webhook_secrets, str):
            raise InvalidRequest("webhook_secrets must be a list of secrets, not one text")
        secrets = tuple(self.webhook_secrets)
        # Anybody could sign with an empty one.
        if not all(SECRET.fullmatch(str(each)) for each in secrets):
            raise InvalidRequest(
                "a webhook secret must begin with whsec_: copy the signing secret of the endpoint"
            )
        object.__setattr__(self, "webhook_secrets", secrets)

    @property
    def live(self) -> bool:
        """Whether these keys move real money."""
        return self.api_key.split("_")[1] == "live"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> StripeSettings | None:
        """Return what the environment says; None where it names no key.

        Raises:
            InvalidRequest: the key is none.
        """
        key = environment.get(API_KEY, "").strip()
        if not key:
            return None
        secrets = (each.strip() for each in environment.get(WEBHOOK_SECRETS, "").split(","))
        return cls(key, [each for each in secrets if each], environment.get(API_BASE) or None)


def checked_settings(settings: object) -> StripeSettings | None:
    """Return the settings that were passed; None: those of the environment, if it has any.

    Raises:
        InvalidRequest: they are none.
    """
    if settings is None:
        return StripeSettings.from_environment()
    if not isinstance(settings, StripeSettings):
        # Not shown: it may be a key.
        raise InvalidRequest(f"stripe must be StripeSettings(...), not `{type(settings).__name__}`")
    return settings
