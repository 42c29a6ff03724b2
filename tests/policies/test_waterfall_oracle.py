"""The waterfall against a second one that tries everything, over small numbers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policies import History, Use
from tests.policies.build import HOUR, NOW, ask, lot, policy_set


@dataclass(frozen=True)
class Tap:
    """A source as the oracle sees it: the weight of the request in it, and what it has left."""

    weight: int
    left: int
    split: bool
    paid: bool = False


@dataclass(frozen=True)
class Case:
    taps: tuple[Tap, ...]
    consent: bool | int
    paid_use: str

    @property
    def paid_units(self) -> int:
        if self.paid_use == "never":
            return 0
        if not isinstance(self.consent, bool):
            return self.consent
        return 10**6 if self.consent or self.paid_use == "auto" else 0


def try_all(taps: tuple[Tap, ...], rest: Fraction, paid: int) -> tuple[int, ...] | None:
    """Return what each tap gives for the rest of a request, by trying every number of units."""
    if rest <= 0:
        return (0,) * len(taps)
    if not taps:
        return None
    first, others = taps[0], taps[1:]
    need = -((-first.weight * rest.numerator) // rest.denominator)
    left = min(first.left, need, paid if first.paid else need)
    if left == need:
        return (need, *(0,) * len(others))
    if not first.split:
        found = try_all(others, rest, paid)
        return None if found is None else (0, *found)
    outcomes = {
        units: try_all(others, rest - Fraction(units, first.weight), paid - units * first.paid)
        for units in range(left + 1)
    }
    most = outcomes[left]
    if most is None:
        return None
    least = min(units for units, found in outcomes.items() if found == most)
    return (least, *most)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 4))
    taps = [
        Tap(draw(st.integers(1, 9)), draw(st.integers(0, 10)), draw(st.booleans()))
        for _ in range(count)
    ]
    paid = draw(st.integers(-1, count - 1))
    if paid >= 0:
        tap = taps[paid]
        taps[paid] = Tap(tap.weight, tap.left, tap.split, paid=True)
    consent = draw(st.one_of(st.booleans(), st.integers(0, 6)))
    return Case(tuple(taps), consent, draw(st.sampled_from(["auto", "ask", "never"])))


def decide(case: Case) -> Any:
    lines, weights, uses = [], [], []
    for index, tap in enumerate(case.taps):
        split = str(tap.split).lower()
        weights.append(f"s{index}: {tap.weight}")
        if tap.paid:
            lines.append(f"  - {{kind: credits, name: s{index}, split: {split}}}")
        else:
            lines.append(
                f"  - {{kind: allowance, name: s{index}, per: 7d, units: 10, split: {split}}}"
            )
            uses.append(Use(f"s{index}", NOW - HOUR, 10 - tap.left))
    plan = f"paid_use: {case.paid_use}\nsources:\n" + "\n".join(lines)
    policies = policy_set(plan, weight=f"{{{', '.join(weights)}}}")
    lots = tuple(lot(available=tap.left) for tap in case.taps if tap.paid and tap.left)
    history = History(tuple(use for use in uses if use.units), all_lots=lots)
    return ask(policies, history, consent=case.consent)


@given(cases())
def test_the_waterfall_gives_what_trying_everything_gives(case):
    expected = try_all(case.taps, Fraction(1), case.paid_units)
    decision = decide(case)
    assert decision.granted == (expected is not None)
    given_units = [0] * len(case.taps)
    for part in decision.allocations:
        given_units[int(part.source[1:])] += part.units
    assert tuple(given_units) == (expected or (0,) * len(case.taps))


@given(cases())
def test_what_is_given_pays_for_the_whole_request_and_no_unit_is_to_spare(case):
    decision = decide(case)
    if not decision.granted:
        return
    paid = [(case.taps[int(part.source[1:])], part.units) for part in decision.allocations]
    assert all(0 < units <= tap.left for tap, units in paid)
    shares = [Fraction(units, tap.weight) for tap, units in paid]
    assert sum(shares) >= 1
    for index, (tap, _) in enumerate(paid):
        assert sum(shares) - Fraction(1, tap.weight) < 1 or index < len(paid) - 1
    # One unit less of any source, and what is left would cost a later source more than it gave.
    for index, (tap, _) in enumerate(paid[:-1]):
        rest = 1 - sum(shares[: index + 1]) + Fraction(1, tap.weight)
        following, following_units = paid[index + 1]
        need = -((-following.weight * rest.numerator) // rest.denominator)
        assert need > following_units or len(paid) > index + 2
    assert sum(units for tap, units in paid if tap.paid) <= case.paid_units


@given(cases())
def test_every_source_has_a_finding_and_the_findings_say_who_gave(case):
    decision = decide(case)
    outcomes = {finding.policy: finding.outcome for finding in decision.findings}
    assert list(outcomes) == [f"s{index}" for index in range(len(case.taps))]
    gave = {name for name, outcome in outcomes.items() if outcome == "gave"}
    assert gave == {part.source for part in decision.allocations}
    if not decision.granted:
        assert "not_needed" not in outcomes.values()
        assert decision.reason is not None
