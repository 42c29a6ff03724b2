"""What changes for whom when one policy file takes the place of another."""

from __future__ import annotations

import json

import pytest

from policies import PolicySet
from policies.diff import diff

OLD = """\
schema: 1
gpus: {h100: {usd_per_hour: 2.50}}
operations:
  video.generate:
    attributes:
      seconds: {type: integer, choices: [10, 15, 25]}
      quality: {type: string, choices: [standard, high], default: standard}
    weight:
      daily_allowance: {by: seconds, table: {10: 1, 15: 2, 25: 4}}
      credits: {by: seconds, table: {10: 1, 15: 2, 25: 3}}
    gpu_cost:
      gpu: h100
      gpu_seconds: {by: [quality, seconds], table: {standard: {10: 140, 15: 210, 25: 350}, high: {10: 420, 15: 640, 25: 1080}}}
    hold_for: {queued: 2h, running: 30m}
packs:
  ten: {units: 10, price: 4.00, valid_for: 12mo}
plans:
  standard:
    paid_use: auto
    limits: [{kind: rate, limit: 5, per: 1m}, {kind: concurrency, limit: 3}]
    sources: [{kind: daily_allowance, units: 30}, {kind: credits}]
  student: {extends: standard}
  pro:
    extends: standard
    price: {usd: 20.00, every: 1mo}
    limits: [{kind: rate, limit: 20, per: 1m}, {kind: concurrency, limit: 5}]
    sources: [{kind: daily_allowance, units: 100}, {kind: credits}]
default_plan: standard
budgets: {free_gpu: {usd_per_day: 250000, sources: [daily_allowance], when_exhausted: next_source}}
on_release:
  moderated: {units: charge}
  failed: {units: return, ours: true}
"""  # noqa: E501 - as people write it


def changes(*edits: tuple[str, str]) -> list[tuple[str, str]]:
    new = OLD
    for find, replace in edits:
        assert new.count(find) == 1, find
        new = new.replace(find, replace)
    return [
        (change.effect, str(change)) for change in diff(PolicySet.parse(OLD), PolicySet.parse(new))
    ]


CASES = {
    "an allowance shrinks, for those that inherit it too": (
        ("units: 30}", "units: 6}"),
        [
            (
                "tightens",
                (
                    "plans standard and student (inherits from standard): daily_allowance 30 -> 6 units"
                    " per rolling 24h"
                ),
            )
        ],
    ),
    "an allowance grows for one plan": (
        ("units: 100}", "units: 120}"),
        [("loosens", "plan pro: daily_allowance 100 -> 120 units per rolling 24h")],
    ),
    "a window changes": (
        ("units: 100}", "units: 100, window: calendar, timezone: Europe/Berlin}"),
        [
            (
                "neutral",
                (
                    "plan pro: daily_allowance: 100 units per rolling 24h -> 100 units per calendar day"
                    " in Europe/Berlin"
                ),
            )
        ],
    ),
    "a rate tightens": (
        ("limit: 20, per: 1m", "limit: 10, per: 1m"),
        [("tightens", "plan pro: rate 20 -> 10 requests per 1m")],
    ),
    "a limit is dropped": (
        (", {kind: concurrency, limit: 5}]", "]"),
        [("loosens", "plan pro: concurrency (5 live grants at a time) is removed")],
    ),
    "a limit is added": (
        (
            "{kind: concurrency, limit: 5}]",
            "{kind: concurrency, limit: 5}, {kind: usage, units: 9, per: 5h}]",
        ),
        [("tightens", "plan pro: usage (9 units per rolling 5h) is added")],
    ),
    "a source is taken away": (
        (
            "[{kind: daily_allowance, units: 100}, {kind: credits}]",
            "[{kind: daily_allowance, units: 100}]",
        ),
        [("tightens", "plan pro: credits (bought and given units) is removed")],
    ),
    "sources change places": (
        (
            "[{kind: daily_allowance, units: 100}, {kind: credits}]",
            "[{kind: credits}, {kind: daily_allowance, units: 100}]",
        ),
        [("neutral", "plan pro: sources are tried in the order credits, daily_allowance")],
    ),
    "a plan costs more": (
        ("usd: 20.00", "usd: 25.00"),
        [("tightens", "plan pro: price $20.00 every 1mo -> $25.00 every 1mo")],
    ),
    "a weight grows": (
        ("15: 2, 25: 4}", "15: 2, 25: 5}"),
        [
            (
                "tightens",
                (
                    "plans standard, pro (inherits from standard) and student (inherits from standard):"
                    " video.generate weighs in daily_allowance at seconds=25: 4 -> 5 units"
                ),
            )
        ],
    ),
    "a cost grows": (
        ("25: 1080}", "25: 1296}"),
        [
            (
                "neutral",
                (
                    "operation video.generate: estimated GPU cost at quality=high, seconds=25:"
                    " $0.75 -> $0.90 (+20 %)"
                ),
            )
        ],
    ),
    "a GPU costs less": (
        ("usd_per_hour: 2.50", "usd_per_hour: 2.00"),
        [
            (
                "neutral",
                (
                    "operation video.generate: estimated GPU cost changes for 6 kinds of request, such"
                    " as at quality=standard, seconds=10: $0.097223 -> $0.077778 (-20 %)"
                ),
            ),
            ("neutral", "GPU h100: $2.50 -> $2.00 per hour (-20 %)"),
        ],
    ),
    "a pack costs more": (
        ("price: 4.00", "price: 5.00"),
        [("tightens", "pack ten: $4.00 -> $5.00")],
    ),
    "a pack gives more": (
        ("units: 10,", "units: 12,"),
        [("loosens", "pack ten: 10 -> 12 units")],
    ),
    "a pack lasts for less": (
        ("valid_for: 12mo", "valid_for: 6mo"),
        [("tightens", "pack ten: valid 1y -> 6mo, for what is bought from now on")],
    ),
    "a pack lasts for ever": (
        (", valid_for: 12mo", ""),
        [("loosens", "pack ten: valid 1y -> for ever, for what is bought from now on")],
    ),
    "a pack is sold in another currency too": (
        ("price: 4.00", "price: {usd: 4.00, eur: 4.50}"),
        [("neutral", "pack ten: $4.00 -> 4.50 eur and $4.00")],
    ),
    "a pack goes": (
        ("packs:\n  ten: {units: 10, price: 4.00, valid_for: 12mo}\n", ""),
        [("tightens", "pack ten is no longer sold: units bought before stay as they are")],
    ),
    "a plan goes": (
        ("  student: {extends: standard}\n", ""),
        [
            (
                "tightens",
                (
                    "plan student is removed: requests of accounts that are still on it are refused"
                    " until they are set to another"
                ),
            )
        ],
    ),
    "a plan comes": (
        ("  student:", "  team: {extends: standard}\n  student:"),
        [
            (
                "neutral",
                (
                    "plan team is new: daily_allowance (30 units per rolling 24h) and credits (bought"
                    " and given units)"
                ),
            )
        ],
    ),
    "an operation goes and comes": (
        ("  video.generate:\n", "  video.make:\n"),
        [
            ("tightens", "operation video.generate is removed: requests for it are refused"),
            ("loosens", "operation video.make is new"),
        ],
    ),
    "a choice comes": (
        ("choices: [standard, high]", "choices: [standard, high]"),
        [],
    ),
    "a hold is longer": (
        ("running: 30m", "running: 1h"),
        [
            (
                "neutral",
                (
                    "operation video.generate: a grant stays open for 2h until started, 30m after ->"
                    " 2h until started, 1h after"
                ),
            )
        ],
    ),
    "a budget shrinks": (
        ("usd_per_day: 250000", "usd_per_day: 1000.50"),
        [
            (
                "tightens",
                (
                    "budget free_gpu $250,000.00 -> $1,000.50 of estimated GPU cost per day in UTC, over"
                    " all accounts, from daily_allowance, then the next source"
                ),
            )
        ],
    ),
    "a release gives back": (
        ("moderated: {units: charge}", "moderated: {units: return}"),
        [("loosens", "release for `moderated`: units are charged -> units come back")],
    ),
    "the default of releases": (
        ("on_release:\n", "on_release:\n  default: {units: charge}\n"),
        [
            (
                "tightens",
                "release for any reason not listed: units come back -> units are charged",
            )
        ],
    ),
    "paid use": (
        ("paid_use: auto", "paid_use: ask"),
        [
            (
                "neutral",
                (
                    "plans standard, pro (inherits from standard) and student (inherits from standard):"
                    " paid use auto -> ask"
                ),
            )
        ],
    ),
    "settings": (
        (
            "default_plan: standard\n",
            "default_plan: pro\non_expire: charge\non_late_settle: charge_if_available\n",
        ),
        [
            ("neutral", "default plan standard -> pro, for accounts that have none of their own"),
            ("tightens", "a grant that expires: units come back -> units are charged"),
            (
                "tightens",
                "work delivered after its grant expired: free -> charged if units are available",
            ),
        ],
    ),
}


@pytest.mark.parametrize(("edit", "expected"), CASES.values(), ids=CASES)
def test_a_change_is_said_in_words_with_whom_it_concerns(edit, expected):
    assert changes(edit) == expected


def test_equal_content_has_no_changes_however_it_is_written():
    new = OLD.replace("12mo", "1y").replace("4.00", "4").replace("schema: 1", "# hello\nschema: 1")
    assert diff(PolicySet.parse(OLD), PolicySet.parse(new)) == []


def test_what_is_only_written_otherwise_is_no_change_for_anybody():
    explicit = OLD.replace("units: 30}", "units: 30, window: rolling, split: false}")
    old, new = PolicySet.parse(OLD), PolicySet.parse(explicit)
    assert old.version != new.version
    assert diff(old, new) == []


def test_changes_come_in_one_order_and_as_plain_values():
    edits = (
        ("units: 30}", "units: 6}"),
        ("price: 4.00", "price: 5.00"),
        ("25: 1080}", "25: 1296}"),
    )
    new = OLD
    for find, replace in edits:
        new = new.replace(find, replace)
    found = diff(PolicySet.parse(OLD), PolicySet.parse(new))
    assert [change.kind for change in found] == ["plan", "gpu_cost", "pack"]
    assert json.loads(json.dumps([change.as_dict() for change in found]))[0] == {
        "kind": "plan",
        "where": "plans.standard.sources.daily_allowance",
        "who": ["standard", "student"],
        "text": "plans standard and student (inherits from standard): daily_allowance 30 -> 6 units"
        " per rolling 24h",
        "effect": "tightens",
    }


def test_there_and_back_is_told_both_ways():
    new = OLD.replace("units: 30}", "units: 6}").replace("price: 4.00", "price: 5.00")
    there = diff(PolicySet.parse(OLD), PolicySet.parse(new))
    back = diff(PolicySet.parse(new), PolicySet.parse(OLD))
    assert [change.where for change in there] == [change.where for change in back]
    assert {change.effect for change in there} == {"tightens"}
    assert {change.effect for change in back} == {"loosens"}


LINEAR = """\
schema: 1
gpus: {a10: {usd_per_hour: 1.10}}
operations:
  image.generate:
    attributes:
      images: {type: integer, default: 1, min: 1, max: 16}
      steps: {type: integer, default: 30, min: 1, max: 150}
      loras: {type: integer, default: 0, min: 0}
    gpu_cost: {gpu: a10, gpu_seconds: {base: 8, each: {images: 3.5, steps: 0.3}}}
plans: {plan: {sources: [{kind: daily_allowance, units: 30}]}}
default_plan: plan
"""


def linear(find: str, replace: str) -> list[str]:
    assert LINEAR.count(find) == 1
    new = PolicySet.parse(LINEAR.replace(find, replace))
    return [str(change) for change in diff(PolicySet.parse(LINEAR), new)]


def test_a_cost_that_changes_for_thousands_of_requests_is_told_in_one_line():
    head = "operation image.generate: estimated GPU cost"
    assert linear("images: 3.5,", "images: 4,") == [
        (
            f"{head} changes for 2,400 kinds of request, from at images=1, steps=150:"
            " $0.017264 -> $0.017417 (+0.9 %) to at images=16, steps=1: $0.019648 -> $0.022092 (+12.4 %)"
        )
    ]
    gpu, price = linear("usd_per_hour: 1.10", "usd_per_hour: 2.20")
    assert gpu.startswith(f"{head} changes for 2,400 kinds of request, ")
    assert price == "GPU a10: $1.10 -> $2.20 per hour (+100 %)"


def test_a_cost_whose_requests_cannot_be_listed_is_told_as_a_formula():
    assert linear("steps: 0.3}", "steps: 0.3, loras: 2}") == [
        (
            "operation image.generate: estimated GPU cost: 8 + 3.5 x images + 0.3 x steps s on a10 ->"
            " 8 + 3.5 x images + 2 x loras + 0.3 x steps s on a10"
        )
    ]


def test_attributes_that_change_are_told():
    assert linear("max: 16", "max: 8") == [
        (
            "operation image.generate: attribute images: integer (default 1, max 16, min 1) ->"
            " integer (default 1, max 8, min 1)"
        )
    ]
    assert linear("      loras: {type: integer, default: 0, min: 0}\n", "") == [
        "operation image.generate: attribute loras is removed: requests that name it are refused"
    ]
    assert linear("      loras:", "      seed: {type: integer}\n      loras:") == [
        "operation image.generate: attribute seed is new, and must be given"
    ]


def test_choices_that_come_and_go_are_told():
    old = OLD
    new = OLD.replace("choices: [10, 15, 25]", "choices: [10, 15, 20]").replace("25: ", "20: ")
    found = [str(change) for change in diff(PolicySet.parse(old), PolicySet.parse(new))]
    assert found == [
        "operation video.generate: attribute seconds no longer allows `25`, and allows `20`"
    ]
