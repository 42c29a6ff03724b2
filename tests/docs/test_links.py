"""Links lead somewhere, and tests that pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_each_link_leads_somewhere(page):
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name.replace("\\_", "_") if name else page
        if not file.exists() or (
            anchor and anchor not in anchors(file.read_text(encoding="utf-8"))
        ):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if "docs" in page.parts], ids=ids)
def test_each_page_is_on_the_map(page):
    name = str(page.relative_to(ROOT / "docs"))
    assert name == "README.md" or f"({name})" in (ROOT / "docs/README.md").read_text(
        encoding="utf-8"
    )


def test_each_test_that_readme_names_exists():
    named = re.findall(r"\[`(test_\w+)`\]\((tests/[\w/]+\.py)\)", (ROOT / "README.md").read_text())
    missing = [
        f"{path}: {name}"
        for name, path in named
        if not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert named
    assert missing == []


def test_readme_names_a_test_for_each_guarantee():
    from tests.architecture.guarantees import GUARANTEES, proves

    named = re.findall(r"`(test_guarantee_\w+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    lacking = [each for each in GUARANTEES if not any(proves(name, each) for name in named)]
    assert lacking == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "docs" in page.parts and "decisions" not in page.parts],
    ids=ids,
)
def test_each_page_says_at_its_beginning_what_it_is_for(page):
    assert "This page " in page.read_text(encoding="utf-8").split("\n\n")[1]
