"""Run the Python blocks of README.md and docs/**/*.md as tests.

The blocks of one page share a namespace and run from top to bottom in a temporary working
directory, so a page may write files and open databases. A block that cannot run says why:

    <!-- skip: next "needs a Stripe account" -->

and is then reported as skipped, with that reason. A YAML block whose first line names a file,
`# policies.yaml`, is written to that file, so that the Python blocks after it can use it. A console
block's lines that begin with `$ comptroller` run too, and must end with exit code 0, or with the
one that the line names: `# exits 1`.

This file stands at the root because README.md does: a conftest hook sees only what is below it.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from xdist.scheduler import LoadScopeScheduling

from quota.redis import opening

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sybil import Document, Example, Region
    from xdist.remote import Producer


STRIPE = "stripe_of_the_tests"

# A machine with other things to do may let a process wait for longer than users are made to: Redis would
# then seem to be away, and tests would see SQL answer in its place. Tests of timeouts set their own.
opening.TIMEOUT_SECONDS = 10.0


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


class PageEvaluator(PythonEvaluator):
    """Runs Python blocks, with the servers that their page asks for."""

    def __call__(self, example: Example) -> None:
        give_servers(example)
        super().__call__(example)


def give_servers(example: Example) -> None:
    """Give a page that reads the URLs of servers from the environment some of the tests' own."""
    from tests.servers import shared_postgres, shared_redis  # noqa: PLC0415 - most pages need none

    give_stripe(example)
    given = example.namespace.setdefault("_servers", {})
    asked = set(re.findall(r'environ\["(COMPTROLLER_\w+)"\]', example.document.text))
    for name in asked - given.keys():
        if name == "COMPTROLLER_REDIS":
            shared_redis().flush()
        given[name] = (
            shared_redis().url
            if name == "COMPTROLLER_REDIS"
            else shared_postgres().fresh_database()
        )
        os.environ[name] = given[name]


def give_stripe(example: Example) -> None:
    """Give a page that reads Stripe's keys from the environment a Stripe of the tests: `stripe_of_the_tests`."""
    namespace = example.namespace
    if 'environ["STRIPE_API_KEY"]' not in example.document.text or STRIPE in namespace:
        return
    from tests.stripe_server import StripeServer  # noqa: PLC0415 - most pages need none

    stripe = StripeServer(lambda: datetime.now(UTC)).__enter__()
    namespace[STRIPE] = stripe
    os.environ |= {
        "STRIPE_API_KEY": stripe.api_key,
        "STRIPE_WEBHOOK_SECRETS": stripe.webhook_secret,
        "STRIPE_API_BASE": stripe.url,
    }


def write_file(example: Example) -> None:
    """Write a block that names a file to that file."""
    give_servers(example)
    if named := re.match(r"# ([\w.-]+)\n", example.parsed):
        Path(named[1]).write_text(example.parsed, encoding="utf-8")


def run_commands(example: Example) -> str | None:
    """Run the commands of a console block. An answer is what is wrong."""
    give_servers(example)
    for line in re.findall(r"^\$ (comptroller .*)$", example.parsed, re.MULTILINE):
        command, _, remark = line.partition("  # ")
        wanted = re.search(r"exits (\d)", remark)
        code = run(shlex.split(command)[1:])
        if code != int(wanted[1] if wanted else 0):
            return f"`{command}` ended with exit code {code}"
    return None


def run(arguments: list[str]) -> int:
    from quota.edges import cli  # noqa: PLC0415 - pytest itself does not need it

    return cli.run(arguments)


def enter_page(namespace: dict[str, Any]) -> None:
    namespace["__name__"] = "__page__"
    namespace["_left"] = os.getcwd()  # noqa: PTH109 - a string, to go back to
    namespace["_folder"] = tempfile.TemporaryDirectory(prefix="comptroller-page-")
    os.chdir(namespace["_folder"].name)


def leave_page(namespace: dict[str, Any]) -> None:
    from tests.servers import shared_postgres  # noqa: PLC0415 - see give_servers

    os.chdir(namespace["_left"])
    if STRIPE in namespace:
        for name in ("STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRETS", "STRIPE_API_BASE"):
            del os.environ[name]
        namespace[STRIPE].__exit__(None, None, None)
    for name, url in namespace.get("_servers", {}).items():
        del os.environ[name]
        if name == "COMPTROLLER_DATABASE":
            shared_postgres().drop_database(url)
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("python", PageEvaluator()),
        CodeBlockParser("yaml", write_file),
        CodeBlockParser("console", run_commands),
        ReasonedSkipParser(),
    ],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
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
