"""How Stripe refuses: an HTTP status and a body `{"error": {...}}`."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


class Refusal(Exception):  # noqa: N818 - an answer, told from our mistakes
    """An answer that is an error.

    `stored` says whether an idempotency key remembers it: Stripe keeps what an endpoint answered
    once it ran, and nothing of a request that it turned away before.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        stored: bool = True,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.stored = stored
        self.headers = headers or {}
        named: Json = {"code": code, "message": message, "param": param, "type": kind, **more}
        self.error: Json = {key: value for key, value in named.items() if value is not None}
        if code:
            self.error["doc_url"] = "https://stripe.com/docs/error-codes/" + code.replace("_", "-")

    @property
    def body(self) -> Json:
        return {"error": self.error}


def invalid(message: str, *, code: str | None = None, param: str | None = None) -> Refusal:
    """A request that makes no sense in the state that things are in: 400, remembered."""
    return Refusal(400, "invalid_request_error", message, code=code, param=param)


def malformed(message: str, *, code: str | None = None, param: str | None = None) -> Refusal:
    """Parameters that are wrong by themselves: 400, not remembered, for nothing ran."""
    return Refusal(400, "invalid_request_error", message, code=code, param=param, stored=False)


def unknown_parameter(param: str) -> Refusal:
    return malformed(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)


def missing_parameter(param: str) -> Refusal:
    return malformed(f"Missing required param: {param}.", code="parameter_missing", param=param)


def not_an_integer(param: str, value: object) -> Refusal:
    return malformed(f"Invalid integer: {value}", code="parameter_invalid_integer", param=param)


def no_such(kind: str, identity: str, *, param: str = "id", status: int = 404) -> Refusal:
    """An id that names nothing: 404 in the path, 400 in a parameter."""
    message = f"No such {kind}: '{identity}'"
    return Refusal(status, "invalid_request_error", message, code="resource_missing", param=param)
