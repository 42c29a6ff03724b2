"""A policy class of another package, really built and installed, works in a policy file like a built-in one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PLUGIN = HERE / "plugin"
PROJECT = HERE.parent.parent

POLICIES = """\
schema: 1
gpus: {h100: {usd_per_hour: 3.60}}
operations:
  video.generate:
    attributes: {seconds: {type: integer, choices: [10, 25]}}
    weight: {by: seconds, table: {10: 1, 25: 3}}
    gpu_cost: {gpu: h100, gpu_seconds: {each: {seconds: 10}}}
plans:
  standard:
    sources:
      - {kind: off_peak_allowance, units: 3, from_hour: 2, until_hour: 6}
      - {kind: daily_allowance, units: 1}
default_plan: standard
"""

USE = """\
import json
import sys
from datetime import UTC, datetime, timedelta

from policies import Circumstances, History, PolicyError, PolicySet, Use, advise, decide
from policies.json_schema import json_schema

policies = PolicySet.load(sys.argv[1])
rules = policies.rules("standard", "video.generate")
request = policies.request("video.generate", {"seconds": 25}, None, False)
circumstances = Circumstances("standard")


def ask(hour, *uses):
    now = datetime(2025, 10, 1, hour, tzinfo=UTC)
    history = History(tuple(Use("off_peak_allowance", now - timedelta(hours=h), 3) for h in uses))
    decision = decide(request, rules, circumstances, history, now)
    advice = advise(policies, rules, request, circumstances, history, now)
    return {
        "gave": {part.source: part.units for part in decision.allocations},
        "findings": [[f.policy, f.outcome, f.used, f.limit, f.asked] for f in decision.findings],
        "reason": decision.reason,
        "retry_at": advice.retry_at.isoformat() if advice.retry_at else None,
    }


def problems(find, replace):
    try:
        PolicySet.parse(open(sys.argv[1]).read().replace(find, replace))
    except PolicyError as error:
        return list(error.problems)


definitions = json_schema()["$defs"]
print(
    json.dumps(
        {
            "night": ask(3),
            "day": ask(12),
            "used": ask(3, 20),
            "again": PolicySet.from_canonical(policies.canonical).version == policies.version,
            "misspelt": problems("until_hour", "untill_hour"),
            "refused": problems("from_hour: 2", "from_hour: 6"),
            "range": problems("from_hour: 2", "from_hour: 25"),
            "schema": definitions["kind:off_peak_allowance"]["properties"]["from_hour"],
            "listed": {"$ref": "#/$defs/kind:off_peak_allowance"} in definitions["Source"]["anyOf"],
        }
    )
)
"""

WHOLE = """\
import json
import sys
from datetime import UTC, datetime

from quota import Comptroller

now = datetime(2025, 10, 1, 3, tzinfo=UTC)
with Comptroller.open(policies=sys.argv[1], database="sqlite://", clock=lambda: now) as comptroller:
    ask = dict(account="u_1", operation="video.generate", attributes={"seconds": 25})
    first, second = comptroller.admit(key="a", **ask), comptroller.admit(key="b", **ask)
    print(json.dumps([first.granted, first.units_by_source, second.reason, str(second.retry_at)]))
"""


def run(code: str, arguments: list[str], path: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{path or ''}{os.pathsep}{PROJECT}"}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Build the package from a copy, so that no build leaves anything here, and install it."""
    folder = Path(tmp_path_factory.mktemp("plugin"))
    source, target = folder / "source", folder / "site"
    shutil.copytree(PLUGIN, source, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += [
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory) -> Path:
    path = Path(tmp_path_factory.mktemp("file")) / "policies.yaml"
    path.write_text(POLICIES, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def used(installed, policy_file) -> Any:
    done = run(USE, [str(policy_file)], installed)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_installed_policy_decides_like_a_built_in_one(used):
    assert used["night"]["gave"] == {"off_peak_allowance": 3}
    assert used["night"]["findings"][0] == ["off_peak_allowance", "gave", 0, 3, 3]
    assert used["day"]["reason"] == "allowance_exhausted"
    assert used["day"]["findings"][0] == ["off_peak_allowance", "passed_over", 0, 0, 3]


def test_an_installed_policy_says_when_waiting_helps(used):
    assert used["day"]["retry_at"] == "2025-10-02T02:00:00+00:00"
    # Used at 07:00 of the day before: back at 07:00, when it is closed; so at 02:00 of the next day.
    assert used["used"]["retry_at"] == "2025-10-02T02:00:00+00:00"


def test_an_installed_policy_is_part_of_the_version_and_comes_back_from_it(used):
    assert used["again"] is True


def test_what_is_wrong_with_an_installed_policy_is_said_like_anything_else(used):
    assert used["misspelt"] == [
        (
            "policies.yaml:11:9: plans.standard.sources[0]: `until_hour` is missing: the hour, in UTC,"
            " until which it gives"
        ),
        (
            "policies.yaml:11:60: plans.standard.sources[0].untill_hour: unknown key: did you mean"
            " `until_hour`?"
        ),
    ]
    assert used["refused"] == [
        "policies.yaml:11:9: plans.standard.sources[0]: `from_hour` must be before `until_hour`"
    ]
    assert used["range"] == [
        "policies.yaml:11:57: plans.standard.sources[0].from_hour: must be at most 23, not `25`"
    ]


def test_editors_know_an_installed_policy(used):
    assert used["listed"] is True
    assert used["schema"]["description"] == "The hour, in UTC, from which it gives."
    assert (used["schema"]["minimum"], used["schema"]["maximum"]) == (0, 23)


def test_the_whole_engine_admits_with_an_installed_policy(installed, policy_file):
    done = run(WHOLE, [str(policy_file)], installed)
    assert done.returncode == 0, done.stderr
    granted, units, reason, retry_at = json.loads(done.stdout)
    assert (granted, units) == (True, {"off_peak_allowance": 3})
    assert (reason, retry_at) == ("allowance_exhausted", "2025-10-01 04:00:00+00:00"), (
        "when the first one's hold expires"
    )


def test_without_the_package_its_kind_is_unknown(policy_file):
    code = "import sys; from policies import PolicySet; PolicySet.load(sys.argv[1])"
    done = run(code, [str(policy_file)], None)
    assert done.returncode == 1
    assert "sources[0].kind: unknown source kind `off_peak_allowance`" in done.stderr


BROKEN = {
    "missing": ("no_such_module:Thing", "cannot be loaded: no module named 'no_such_module'"),
    "no_policy": ("decimal:Decimal", "is no subclass of Limit or Source"),
    "taken": ("taken:Taken", "takes the kind `rate`, which is taken already"),
    "no_kind": ("taken:NoKind", "needs `kind: Literal[...]` with one name"),
}
TAKEN = """\
from typing import Literal
from policies import Limit


class Taken(Limit):
    kind: Literal["rate"] = "rate"


class NoKind(Limit):
    kind: str = "x"
"""


@pytest.mark.parametrize(("value", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_package_is_named_in_one_line(tmp_path, policy_file, value, message):
    (tmp_path / "taken.py").write_text(TAKEN, encoding="utf-8")
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[comptroller.policies]\nodd = {value}\n")
    code = """
import sys
from policies import PolicyError, PolicySet
try:
    PolicySet.load(sys.argv[1])
except PolicyError as error:
    print(error)
"""
    done = run(code, [str(policy_file)], tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert message in line


def test_the_page_that_explains_it_shows_this_very_code():
    page = (PROJECT / "docs" / "how-to" / "add-a-policy.md").read_text(encoding="utf-8")
    code = (PLUGIN / "comptroller_off_peak" / "__init__.py").read_text(encoding="utf-8")
    assert f"```python\n{code}```" in page
    entry = '[project.entry-points."comptroller.policies"]'
    wanted = (
        (PLUGIN / "pyproject.toml").read_text(encoding="utf-8").split(entry)[1].split("\n\n")[0]
    )
    assert f"{entry}{wanted}" in page
