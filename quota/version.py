"""The engine's version, which every grant's record carries."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final


def _installed() -> str:
    try:
        return version("comptroller")
    except PackageNotFoundError:
        return "0"


ENGINE: Final = _installed()
