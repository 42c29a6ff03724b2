"""Our check of signatures, held against the one of Stripe's own library."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import stripe
from freezegun import freeze_time
from hypothesis import example, given
from hypothesis import strategies as st

from billing.stripe.signature import BODY_MAX, TOLERANCE_SECONDS, check_signature, sign
from policies.errors import InvalidRequest, InvalidSignature
from quota import StripeSettings

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
STAMP = int(NOW.timestamp())
BODY = b'{"id": "evt_1"}'
SECRET = "whsec_ours"


def ours(payload: bytes, header: Any, secrets: list[str], now: datetime = NOW) -> bool:
    """Whether we accept it."""
    try:
        check_signature(payload, header, secrets, now)
    except InvalidSignature:
        return False
    return True


def theirs(payload: bytes, header: str, secrets: list[str], now: datetime = NOW) -> bool:
    """Whether Stripe's library accepts it with one of the secrets: it takes one at a time."""
    return any(_accepted(payload, header, secret, now) for secret in secrets)


def _accepted(payload: bytes, header: str, secret: str, now: datetime) -> bool:
    try:
        with freeze_time(now, real_asyncio=True):
            stripe.WebhookSignature.verify_header(payload, header, secret, TOLERANCE_SECONDS)
    except (stripe.SignatureVerificationError, TypeError):  # the latter for what is not ASCII
        return False
    return True


secrets = st.sampled_from(["whsec_ours", "whsec_former", "whsec_theirs"])
ages = st.sampled_from([0, 1, 299, 300, 301, 10**6, -1, -299]) | st.integers(-299, 400)
bodies = st.sampled_from([BODY, b"", "é".encode()]) | st.text(max_size=20).map(str.encode)


@st.composite
def signed(draw: Any) -> tuple[bytes, str]:
    """A body and a header as Stripe writes them: one timestamp, one signature or several, and other schemes."""
    body, stamp = draw(bodies), STAMP - draw(ages)
    by = draw(st.lists(secrets, min_size=1, max_size=3))
    parts = [sign(body, secret, stamp).partition(",")[2] for secret in by]
    parts += draw(st.lists(st.sampled_from(["v0=ab", "v1=" + "0" * 64, "v2=x"]), max_size=2))
    return body, ",".join([f"t={stamp}", *draw(st.permutations(parts))])


@given(signed(), st.lists(secrets, min_size=1, max_size=2), st.sampled_from([0, 1, 500_000]))
def test_what_stripe_signs_is_accepted_exactly_where_stripes_library_accepts_it(
    signed, known, micros
):
    body, header = signed
    now = NOW.replace(microsecond=micros)
    assert ours(body, header, known, now) == theirs(body, header, known, now)


@st.composite
def damaged(draw: Any) -> tuple[bytes, str]:
    """A signed request with whatever has happened to it on its way."""
    body, header = draw(signed())
    match draw(st.integers(0, 5)):
        case 0:
            place = draw(st.integers(0, len(header)))
            header = header[:place] + draw(st.text(max_size=2)) + header[place:]
        case 1:
            header = header[: draw(st.integers(0, len(header)))]
        case 2:
            header = header + "," + draw(st.sampled_from(["t=1", f"t={STAMP}", "v1=", "t=", "="]))
        case 3:
            header = header.replace("t=", draw(st.sampled_from(["t=0", "t= ", "t=+", "T=", " t="])))
        case 4:
            body += draw(st.sampled_from([b" ", b"\n", b"{}"]))
        case _:
            header = draw(st.text(max_size=30))
    return body, header


@given(damaged(), st.lists(secrets, min_size=1, max_size=2))
@example((BODY, f"t={STAMP + 1},v1="), [SECRET])
@example((BODY, f"t={STAMP},v1=\udc80"), [SECRET])
@example((BODY, f"{sign(BODY, SECRET, STAMP)},v1=é"), [SECRET])
def test_nothing_is_accepted_that_stripes_library_refuses(damaged, known):
    body, header = damaged
    assert not ours(body, header, known) or theirs(body, header, known)


def test_timestamps_of_the_future_pass_stripes_library_and_not_ours():
    ahead = STAMP + TOLERANCE_SECONDS
    assert ours(BODY, sign(BODY, SECRET, ahead), [SECRET])
    header = sign(BODY, SECRET, ahead + 1)
    assert theirs(BODY, header, [SECRET])
    assert not ours(BODY, header, [SECRET])


@pytest.mark.parametrize(
    "stamp", ["", "-1", "+1", " 1", "1.5", "1e9", "0x1", "٣", "9" * 400, str(STAMP - 301)]
)
def test_a_timestamp_that_is_none_or_too_old_is_refused(stamp):
    header = sign(BODY, SECRET, STAMP).replace(f"t={STAMP}", f"t={stamp}")
    assert not ours(BODY, header, [SECRET])


def test_two_timestamps_are_refused_though_one_of_them_was_signed():
    header = sign(BODY, SECRET, STAMP)
    assert not ours(BODY, f"{header},t={STAMP + 1}", [SECRET])
    assert not ours(BODY, f"{header},t={STAMP}", [SECRET])


@pytest.mark.parametrize("header", [None, b"t=1,v1=x", 7, "", ",", "=", "v1=x", f"t={STAMP}"])
def test_a_header_that_is_none_is_refused_in_one_line(header):
    with pytest.raises(InvalidSignature) as refused:
        check_signature(BODY, header, [SECRET], NOW)
    assert "Stripe-Signature" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_a_secret_nothing_is_accepted():
    assert not ours(BODY, sign(BODY, "", STAMP), [])


def test_a_body_that_is_too_large_is_not_even_hashed():
    body = b"x" * (BODY_MAX + 1)
    with pytest.raises(InvalidSignature, match="bytes"):
        check_signature(body, sign(body, SECRET, STAMP), [SECRET], NOW)
    assert ours(body[1:], sign(body[1:], SECRET, STAMP), [SECRET])


@pytest.mark.parametrize("secret", ["", " ", "whsec_", "whsec_a b", "sk_test_x", None, b"whsec_x"])
def test_a_secret_with_which_anybody_could_sign_is_refused(secret):
    with pytest.raises(InvalidRequest, match="whsec_") as refused:
        StripeSettings("sk_test_1", ["whsec_good", secret])
    assert "good" not in str(refused.value)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "pk_test_1234",
        "sk_1234",
        "whsec_1234",
        "sk_prod_1234",
        "sk_test_1234\n",
        "sk_test_12 1234",
        None,
    ],
)
def test_a_key_that_is_none_is_refused_and_not_repeated(key):
    with pytest.raises(InvalidRequest, match="sk_live_") as refused:
        StripeSettings(key)
    assert "1234" not in str(refused.value)
