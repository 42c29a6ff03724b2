"""The policy version: the hash of a canonical content that only real changes change."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from policies import PolicyError, PolicySet

TEXT = """\
schema: 1
currency: usd
gpus:
  h100: {usd_per_hour: 2.50}
  a10: {usd_per_hour: 1}
operations:
  video.generate:
    attributes:
      seconds: {type: integer, choices: [10, 15]}
      scale: {type: decimal, choices: [0.5, 1.50], default: 1.50}
      quality: {type: string, choices: [standard, high], default: standard}
      hd: {type: boolean, default: false}
    weight:
      daily_allowance: {by: seconds, table: {10: 1, 15: 2}}
      credits: {each: {seconds: 0.10, scale: 1}}
    gpu_cost: {gpu: h100, gpu_seconds: {base: 8.0, each: {seconds: 3.50}}, ceiling_gpu_seconds: 600}
    hold_for: {queued: 2h, running: 30m}
  image.generate:
    gpu_cost: {usd: 0.040}
    hold_for: 60m
packs:
  ten: {units: 10, price: 4.00, valid_for: 12mo}
  more: {units: 50, price: {usd: 15.50, eur: 14}}
plans:
  standard:
    paid_use: auto
    limits:
      - {kind: rate, limit: 5, per: 60s}
      - {kind: spend, limit: {usd: 2000}, per: 1mo, window: calendar}
    sources:
      - {kind: daily_allowance, units: 30, window: rolling}
      - {kind: credits}
  pro:
    extends: standard
    price: {usd: 20.00, every: 1mo}
    sources:
      - {kind: allowance, name: daily_allowance, units: 100, per: 24h}
      - {kind: credits}
default_plan: standard
budgets:
  free: {usd_per_day: 250000.0, sources: [daily_allowance]}
  all: {usd_per_day: 1000000}
on_release:
  failed: {units: return, ours: true, grace: 7d}
on_expire: return_units
"""
POLICIES = PolicySet.parse(TEXT)


def version(text: str) -> str:
    return PolicySet.parse(text).version


def test_a_version_is_sixty_four_hexadecimal_digits():
    assert re.fullmatch(r"[0-9a-f]{64}", POLICIES.version)


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("schema: 1\n", "# a comment\nschema: 1   # another\n\n"),
        ("usd_per_hour: 2.50", "usd_per_hour: 2.5"),
        ("usd_per_hour: 1}", "usd_per_hour: 1.00}"),
        ("usd_per_hour: 2.50", 'usd_per_hour: "2.50"'),
        ("price: 4.00", "price: 4"),
        ("price: 4.00", "price: 0.4e1"),
        ("units: 30", "units: 30.0"),
        ("units: 30", "units: 3e1"),
        ("250000.0", "250000"),
        ("{usd: 15.50, eur: 14}", "{eur: 14.00, usd: 15.5}"),
        ("[0.5, 1.50], default: 1.50", "[0.50, 1.5], default: 1.5"),
        ("choices: [10, 15]", "choices: [10.0, 15]"),
        ("{10: 1, 15: 2}", "{15: 2.0, 10: 1}"),
        ("{10: 1, 15: 2}", '{"10": 1, 15.0: 2}'),
        ("choices: [standard, high]", "choices: ['standard', \"high\"]"),
        ("per: 60s", "per: 1m"),
        ("per: 24h", "per: 1d"),
        ("valid_for: 12mo", "valid_for: 1y"),
        ("hold_for: 60m", "hold_for: 1h"),
        ("base: 8.0, each: {seconds: 3.50}", "each: {seconds: 3.5}, base: 8"),
        ("limits:\n", "limits: &limits\n"),
        ("      - {kind: credits}\n  pro", "      -\n        kind: credits\n  pro"),
        ("on_release:\n  failed: {units: return,", "on_release:\n  failed: {'units': 'return',"),
        ("default: false", "default: False"),
    ],
)
def test_comments_order_quotes_and_spelling_do_not_change_the_version(find, replace):
    assert TEXT.count(find) == 1, find
    assert version(TEXT.replace(find, replace)) == POLICIES.version


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("usd_per_hour: 2.50", "usd_per_hour: 2.51"),
        ("price: 4.00", "price: 4.01"),
        ("units: 30", "units: 31"),
        ("{10: 1, 15: 2}", "{10: 1, 15: 3}"),
        ("choices: [10, 15]", "choices: [15, 10]"),
        ("[standard, high]", "[standard, high, ultra]"),
        ("per: 60s", "per: 61s"),
        ("valid_for: 12mo", "valid_for: 365d"),
        ("window: rolling}", "window: calendar}"),
        ("paid_use: auto", "paid_use: ask"),
        ("  h100:", "  spare: {usd_per_hour: 1}\n  h100:"),
        ("extends: standard", "extends: standard\n    paid_use: auto"),
        ("default_plan: standard", "default_plan: pro"),
        ("sources: [daily_allowance]", "sources: [daily_allowance, credits]"),
        ("ours: true, grace: 7d", "ours: true, grace: 8d"),
        ("on_expire: return_units", "on_expire: charge"),
        ("eur: 14", "gbp: 14"),
    ],
)
def test_any_real_change_changes_the_version(find, replace):
    assert TEXT.count(find) == 1, find
    assert version(TEXT.replace(find, replace)) != POLICIES.version


def test_the_order_of_a_list_is_content():
    rate = "      - {kind: rate, limit: 5, per: 60s}\n"
    spend = "      - {kind: spend, limit: {usd: 2000}, per: 1mo, window: calendar}\n"
    swapped = TEXT.replace(rate + spend, spend + rate)
    assert swapped != TEXT
    assert version(swapped) != POLICIES.version


@st.composite
def shuffled(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict):
        keys = draw(st.permutations(list(value)))
        return {key: draw(shuffled(value[key])) for key in keys}
    return [draw(shuffled(item)) for item in value] if isinstance(value, list) else value


class Plain(yaml.SafeLoader):
    """Reads every scalar as text, so that it can be written again as it was."""


Plain.yaml_implicit_resolvers = {}


@given(shuffled(yaml.load(TEXT, Plain)), st.sampled_from(["'", '"']), st.booleans())
def test_no_order_of_keys_and_no_layout_changes_the_version_or_an_answer(value, quote, flow):
    written = yaml.safe_dump(value, default_style=quote, default_flow_style=flow, sort_keys=False)
    # Numbers and booleans lose their quotes again; text keeps them.
    unquoted = re.sub(rf"{quote}(-?[0-9.]+|true|false){quote}", r"\1", written)
    policies = PolicySet.parse(unquoted)
    assert policies.version == POLICIES.version
    assert policies.canonical == POLICIES.canonical
    limits = [limit.label for limit in policies.rules("pro", "image.generate").limits]
    assert limits == [limit.label for limit in POLICIES.rules("pro", "image.generate").limits]


def test_the_canonical_content_gives_the_same_set_again():
    again = PolicySet.from_canonical(POLICIES.canonical)
    assert again.version == POLICIES.version
    assert again.canonical == POLICIES.canonical
    assert again.model_dump() == POLICIES.model_dump()
    for plan in POLICIES.plans:
        for operation in POLICIES.operations:
            one, other = POLICIES.rules(plan, operation), again.rules(plan, operation)
            assert one == other
    attributes = {"seconds": 15}
    request = POLICIES.request("video.generate", attributes, None, consent=False)
    assert again.request("video.generate", attributes, None, consent=False) == request


def test_the_canonical_content_is_a_policy_file_too():
    assert PolicySet.parse(POLICIES.canonical).version == POLICIES.version


@pytest.mark.parametrize("name", ["edge", "gentd26", "sora-launch"])
def test_the_examples_survive_their_canonical_content(shared, name):
    policies = PolicySet.load(shared / "examples" / f"{name}.yaml")
    assert PolicySet.from_canonical(policies.canonical).version == policies.version


def test_no_float_appears_in_the_canonical_content():
    assert not re.search(r":-?[0-9]+\.", POLICIES.canonical)


def test_a_content_that_this_installation_does_not_know_is_a_policy_error():
    with pytest.raises(PolicyError, match="unknown limit kind `lunar`") as caught:
        PolicySet.from_canonical(POLICIES.canonical.replace('"kind":"rate"', '"kind":"lunar"'))
    assert caught.value.problems[0].startswith("plans.standard.limits[0].kind: ")
