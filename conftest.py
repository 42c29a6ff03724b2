"""Run the Python blocks of README.md and docs/**/*.md as tests.

The blocks of one page share a namespace and run from top to bottom in a temporary working
directory, so a page may write files and open databases. A block that cannot run says why:

    <!-- skip: next "needs a Stripe account" -->

and is then reported as skipped, with that reason.

This file stands at the root because README.md does: a conftest hook sees only what is below it.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sybil import Document, Region
    from xdist.remote import Producer


class ReasonedSkipParser(SkipParser):
    """Sybil's skip marker, which here must give a reason."""

    def __call__(self, document: Document) -> Iterable[Region]:
        for region in super().__call__(document):
            action, reason = region.parsed
            if action != "end" and not reason:
                line = document.text.count("\n", 0, region.start) + 1
                message = f'{document.path}:{line}: say why: <!-- skip: {action} "the reason" -->'
                raise ValueError(message)
            yield region


def enter_page(namespace: dict[str, Any]) -> None:
    namespace["__name__"] = "__page__"
    namespace["_left"] = os.getcwd()  # noqa: PTH109 - a string, to go back to
    namespace["_folder"] = tempfile.TemporaryDirectory(prefix="comptroller-page-")
    os.chdir(namespace["_folder"].name)


def leave_page(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_left"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), ReasonedSkipParser()],
    patterns=["README.md", "docs/**/*.md"],
    setup=enter_page,
    teardown=leave_page,
).pytest()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """With several workers, keep the blocks of a page on one of them.

    (pytest-xdist's own groups, `--dist loadgroup`, have no effect under pytest 9.2.)
    """
    return PageScheduling(config, log) if config.getvalue("dist") == "load" else None


class PageScheduling(LoadScopeScheduling):
    """Hand out pages whole, and every other test by itself."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, _ = nodeid.partition("::")
        return path if path.endswith(".md") else nodeid
