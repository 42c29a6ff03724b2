"""The web app: it asks Comptroller before a job exists, and maps each answer to HTTP in one place."""

import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from quota import (
    ComptrollerError,
    Denial,
    IdempotencyConflict,
    InvalidRequest,
    InvalidSignature,
    PaymentNotConfigured,
    PaymentRefused,
)
from video_app.product import OPEN, Job, Product, move, opened

log = logging.getLogger("video_app")
SITE = "https://videos.example"
api = APIRouter()


class Ask(BaseModel):
    """What a user asks for. `use_credits`: whether units that were paid for may be used."""

    prompt: str
    seconds: int = 5
    use_credits: bool = False


class Video(BaseModel):
    """A job as its user sees it, with the units that it was granted, by source."""

    id: int
    state: str
    units: dict[str, int]


class Cancelled(BaseModel):
    """A job that its user has cancelled. `units_charged`: those that were not given back."""

    id: int
    units_charged: int


class Free(BaseModel):
    """What is left of a free allowance, in units, and when the next one comes back."""

    source: str
    limit: int
    remaining: int
    next_return_at: datetime | None


class Allowance(BaseModel):
    """What a user may still ask for. `credits`: units that were paid for."""

    free: list[Free]
    credits: int


class Refused(Exception):  # noqa: N818 - what it says
    """Comptroller has denied a request. Raised in a transaction, it rolls that back."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial.reason)
        self.denial = denial


def create_app(open_product: Callable[[], AbstractContextManager[Product]] = opened) -> FastAPI:
    """Make the app. It opens the product when it starts, and closes it when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with open_product() as app.state.product:
            yield

    app = FastAPI(title="Videos", lifespan=lifespan)
    app.include_router(api)
    app.exception_handler(Refused)(refused)
    app.exception_handler(ComptrollerError)(failed)
    return app


def the_product(request: Request) -> Product:
    product: Product = request.app.state.product
    return product


# Comptroller believes the account that it is told. Your login goes in the place of this header.
User = Annotated[str, Header(alias="X-User")]
Key = Annotated[str, Header(alias="Idempotency-Key")]
TheProduct = Annotated[Product, Depends(the_product)]


# --- videos -----------------------------------------------------------------------------------


@api.post("/videos", status_code=202)
def ask_for_video(ask: Ask, user: User, key: Key, product: TheProduct) -> Video:
    """Admit a request and queue its job: both, or neither. The same key brings the same job again."""

    def submit(session: Session) -> Video:
        decision = product.comptroller.admit(
            account=user,
            operation="video.generate",
            attributes={"seconds": ask.seconds},
            key=key,
            consent=ask.use_credits,
            session=session,
        )
        if not decision:
            raise Refused(decision)
        if decision.replayed:
            job = session.scalars(select(Job).where(Job.grant_id == decision.id)).one()
            if job.prompt != ask.prompt:  # Comptroller has compared the rest
                raise HTTPException(409, "this key was used for another prompt")
        else:
            job = Job(account=user, grant_id=decision.id, prompt=ask.prompt, state="queued")
            session.add(job)
            session.flush()
        return Video(id=job.id, state=job.state, units=decision.units_by_source)

    return product.in_transaction(submit)


@api.get("/videos/{video_id}")
def show_video(video_id: int, user: User, product: TheProduct) -> Video:
    """Show a job. Where its worker has died, nobody has written that down: the grant knows it."""
    with Session(product.engine) as session:
        job = own_job(session, video_id, user)
        grant_id, state = job.grant_id, job.state
    grant = product.comptroller.get(grant_id)
    if state in OPEN and grant.status == "expired":
        state = "expired"
    return Video(id=video_id, state=state, units=grant.units_by_source)


@api.delete("/videos/{video_id}")
def cancel_video(video_id: int, user: User, product: TheProduct) -> Cancelled:
    """Cancel a job. What that gives back, policies.yaml says, by whether a worker had begun."""
    with Session(product.engine) as session:
        own_job(session, video_id, user)

    def cancel(session: Session) -> Cancelled:
        release = product.comptroller.release
        if job := move(session, Job.id == video_id, "queued", "cancelled"):
            reason = "cancelled_before_start"
            ending = release(job.grant_id, reason=reason, gpu_seconds=0, session=session)
        elif job := move(session, Job.id == video_id, "running", "cancelled"):
            # The worker hears of it at its next heartbeat. Its time is not known: the estimate is booked.
            reason = "cancelled_after_start"
            ending = release(job.grant_id, reason=reason, session=session)
        else:
            raise HTTPException(409, "it has ended already")
        return Cancelled(id=video_id, units_charged=ending.units_charged)

    return product.in_transaction(cancel)


def own_job(session: Session, video_id: int, user: str) -> Job:
    job = session.get(Job, video_id)
    if job is None or job.account != user:
        raise HTTPException(404, "there is no such video")
    return job


# --- what is left, and more of it -------------------------------------------------------------


@api.get("/allowance")
def show_allowance(user: User, product: TheProduct) -> Allowance:
    """Show what is left. It is a look: only asking for a video decides."""
    balance = product.comptroller.balance(user)
    free = [
        Free(
            source=each.source,
            limit=each.limit,
            remaining=each.remaining,
            next_return_at=each.next_return_at,
        )
        for each in balance.allowances
    ]
    return Allowance(free=free, credits=balance.credits)


@api.post("/packs/{pack}")
def buy_pack(pack: str, user: User, product: TheProduct) -> dict[str, str]:
    """Offer a pack: send the buyer to `url`. The units come with Stripe's event, not with a visit to our page."""
    checkout = product.comptroller.checkout(
        user, pack=pack, success_url=f"{SITE}/thanks", cancel_url=f"{SITE}/packs"
    )
    return {"url": checkout.url, "purchase": checkout.purchase_id}


@api.post("/stripe/webhook")
async def take_in_event(request: Request, product: TheProduct) -> dict[str, str]:
    """Take in what Stripe tells. An error is an answer too: Stripe then sends the event again."""
    payload = await request.body()  # the bytes as they came: these are signed
    signature = request.headers.get("Stripe-Signature", "")
    take_in = product.comptroller.handle_stripe_event
    outcome = await run_in_threadpool(take_in, payload, signature)
    return {"effect": outcome.effect}


# --- the one mapping of answers to HTTP -------------------------------------------------------

WAIT, PAY = 429, 402
DENIALS = {
    "rate_exceeded": WAIT,
    "concurrency_exceeded": WAIT,
    "usage_exceeded": WAIT,
    "allowance_exhausted": WAIT,
    "credits_exhausted": PAY,
    "consent_needed": PAY,
    "spend_exceeded": PAY,
    "paid_use_off": 403,
    "account_frozen": 403,
    "budget_exhausted": 503,
}
OUR_FAULT = 500
ERRORS: tuple[tuple[type[ComptrollerError], int], ...] = (
    (InvalidSignature, 400),
    (PaymentNotConfigured, OUR_FAULT),
    (InvalidRequest, 422),
    (IdempotencyConflict, 409),
    (PaymentRefused, 502),
)


def refused(_: Request, error: Exception) -> JSONResponse:
    """Say why a request was denied, when to ask again, and what else would get it through."""
    assert isinstance(error, Refused)
    denial, headers = error.denial, {}
    status = DENIALS.get(denial.reason, WAIT)  # a policy of your own has a reason of its own
    if status == WAIT and any(offer.kind == "buy" for offer in denial.offers):
        status = PAY
    if denial.retry_at is not None:
        # Counted from the account's own time, not from the clock of the web server.
        seconds = math.ceil((denial.retry_at - denial.at).total_seconds())
        headers["Retry-After"] = str(max(1, seconds))
    offers: list[dict[str, Any]] = [
        {
            "kind": offer.kind,
            "at": offer.at and offer.at.isoformat(),
            "pack": offer.pack,
            "units": offer.units,
            "attributes": offer.attributes and dict(offer.attributes),
            "price": offer.price and [offer.price.minor, offer.price.currency],
        }
        for offer in denial.offers
    ]
    return JSONResponse({"reason": denial.reason, "offers": offers}, status, headers)


def failed(_: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a request. What is wrong with us goes to the log, and nobody else can mend it."""
    assert isinstance(error, ComptrollerError)
    if error.retryable:
        return JSONResponse({"error": "try again later"}, 503, {"Retry-After": "1"})
    status = next((status for kind, status in ERRORS if isinstance(error, kind)), OUR_FAULT)
    if status == OUR_FAULT:
        log.error("a call of Comptroller failed", exc_info=error)
        return JSONResponse({"error": "this is our fault"}, status)
    return JSONResponse({"error": str(error)}, status)
