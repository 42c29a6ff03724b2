"""The figures that README gives are those that were measured."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_figure_of_what_it_costs_is_in_the_page_about_performance():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    performance = (ROOT / "docs/reference/performance.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"## What it costs\n(.*?)\n## ", readme, re.DOTALL)
    figures = re.findall(r"\d+\.\d+|\d+,\d+|\b\d{2}\b", section)
    assert len(figures) >= 6
    assert [each for each in figures if not re.search(rf"\b{re.escape(each)}\b", performance)] == []
