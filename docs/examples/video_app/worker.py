"""The worker: it takes up queued jobs, keeps their holds alive, and ends each grant with the job.

It needs no clean-up after a crash: the hold of a job that nobody is heard of expires, and its units go back.
Run as many as there are GPUs: `python -m video_app.worker`.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from quota import ComptrollerError, Ending, GrantEnded
from video_app.product import Job, Product, State, move, opened

ALIVE_FOR = timedelta(minutes=5)
"""How long a hold outlives its worker's last heartbeat. Beat several times within it."""
NANOSECOND = Decimal("1e-9")
IDLE_SECONDS = 1.0

Beat = Callable[[], None]
Render = Callable[[Job, Beat], None]
log = logging.getLogger("video_app")


@dataclass(frozen=True)
class Worker:
    """One GPU. `render` makes a video, and beats while it does; `nanoseconds` measures how long that takes."""

    product: Product
    render: Render
    nanoseconds: Callable[[], int] = time.monotonic_ns

    def work(self) -> bool:
        """Take up the oldest queued job and work on it until it has ended. False: there was none."""
        job = self.product.in_transaction(self._take_up)
        if job is None:
            return False
        if job.state == "expired":
            return True  # it had waited for longer than its hold lives
        began, state = self.nanoseconds(), self._rendered(job)
        gpu_seconds = (self.nanoseconds() - began) * NANOSECOND
        ending = self.product.in_transaction(
            lambda session: self._end(session, job, state, gpu_seconds)
        )
        log.info("job %s: %s, %s units", job.id, ending.status, ending.units_charged)
        return True

    def _take_up(self, session: Session) -> Job | None:
        """Take the oldest job that no other worker takes, and start its grant."""
        queued = select(Job.id).where(Job.state == "queued").order_by(Job.id).limit(1)
        oldest = queued.with_for_update(skip_locked=True).scalar_subquery()
        job = move(session, Job.id == oldest, "queued", "running")
        if job is not None:
            try:
                self.product.comptroller.start(job.grant_id, session=session)
            except GrantEnded:
                job.state = "expired"
        return job

    def _rendered(self, job: Job) -> State:
        def beat() -> None:
            try:
                self.product.comptroller.extend(job.grant_id, ALIVE_FOR)
            except ComptrollerError as error:
                if not error.retryable:
                    raise  # the grant has ended: so does the work
                log.warning("job %s: %s", job.id, error)  # the next beat is in time, too

        try:
            self.render(job, beat)
        except GrantEnded as ended:
            log.info("job %s: %s", job.id, ended)
            return "failed"
        except Exception:
            log.exception("job %s failed", job.id)
            return "failed"
        return "done"

    def _end(self, session: Session, job: Job, state: State, gpu_seconds: Decimal) -> Ending:
        """End a job and its grant together. Of a grant that had expired, only the time on the GPU is booked."""
        moved = move(session, Job.id == job.id, "running", state)
        comptroller, grant_id = self.product.comptroller, job.grant_id
        if state == "done":
            ending = comptroller.settle(grant_id, gpu_seconds=gpu_seconds, session=session)
        else:
            ending = comptroller.release(
                grant_id, reason="failed", gpu_seconds=gpu_seconds, session=session
            )
        if moved is not None and ending.status == "expired":
            moved.state = "expired"  # too late: its units have gone back, so it is not delivered
        return ending


def pretend(job: Job, beat: Beat) -> None:
    """Take some time, as your model does. It beats between the steps of its work."""
    for _ in range(10):
        beat()
        time.sleep(0.2)
    log.info("job %s: a video of %s", job.id, job.prompt)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())  # the job at hand is finished first
    with opened() as product:
        worker = Worker(product, pretend)
        while not stop.is_set():
            if not worker.work():
                stop.wait(IDLE_SECONDS)


if __name__ == "__main__":
    main()
