"""Threads that work off the path of requests, for as long as the process lives."""

from __future__ import annotations

import threading
from collections.abc import Callable


def started(work: Callable[[], None], name: str) -> threading.Thread | None:
    """Start a thread, or return None where none can be had: by then what it is for is committed, and must not fail.

    The system may have no more of them, and an interpreter that is going down starts none.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
