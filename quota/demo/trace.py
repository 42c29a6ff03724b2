"""The demo's demand: one week of a video app that does not exist, made up from a seed.

It has the shape of real demand: most accounts ask a handful of times in a week, a few ask hundreds
of times a day; evenings are busy and nights are not; a few jobs fail, are moderated, are cancelled,
or lose their worker. Numbers of chance may be floats here; nothing of this is money or units.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal

START: Final = datetime(2026, 9, 7, tzinfo=UTC)
"""A Monday."""
DAYS: Final = 7
ACCOUNTS: Final = 300
SEED: Final = 2026

Fate = Literal[
    "delivered",
    "infrastructure_failure",
    "moderated_before_run",
    "moderated_after_run",
    "cancelled_before_start",
    "cancelled_after_start",
    "worker_died",
    "late",
]
FATES: Final[tuple[tuple[Fate, int], ...]] = (
    ("delivered", 900),
    ("infrastructure_failure", 35),
    ("moderated_before_run", 14),
    ("moderated_after_run", 14),
    ("cancelled_before_start", 14),
    ("cancelled_after_start", 9),
    ("worker_died", 9),
    ("late", 5),
)
"""What becomes of a job, out of a thousand."""

CLIPS: Final = (
    ((5, "draft"), 50),
    ((10, "draft"), 30),
    ((20, "draft"), 8),
    ((5, "high"), 8),
    ((10, "high"), 4),
)
HOURS: Final = (3, 2, 1, 1, 1, 1, 2, 3, 4, 5, 5, 6, 7, 7, 6, 6, 7, 8, 10, 12, 14, 13, 9, 5)
"""How busy each hour of a day is."""
WEEKEND: Final = 1.35

NAMES: Final = (
    "ada alan amara anders anouk arjun astrid bao beatriz björn carmen chidi chloe dana dmitri elif "
    "emeka esra fatima felix freya gita hana hugo ines ivan jana jonas kaya kenji lars leila lin luca "
    "maya mei milo mina nadia nils noor olga omar paolo petra priya quinn rafael rosa sami sofia "
    "tariq theo uma vera viktor wanjiru xin yara yuki zadie zoltan"
).split()  # fmt: skip


@dataclass(frozen=True, slots=True)
class Person:
    """An account. `asks` in the week; `packs_max`: how many packs it would buy when it is denied."""

    name: str
    plan: str
    asks: int
    packs_max: int
    promo_units: int


@dataclass(frozen=True, slots=True)
class Job:
    """One request that somebody will make, and what becomes of its work if it is granted.

    `gpu_factor`: how its time on the GPU compares with the estimate. Waits are in seconds.
    """

    number: int
    at: datetime
    person: Person
    seconds: int
    quality: str
    fate: Fate
    wait_seconds: int
    gpu_factor: Decimal


@dataclass(frozen=True, slots=True)
class Demand:
    """A week of it: who there is, and what they will ask for, in order of time."""

    people: tuple[Person, ...]
    jobs: tuple[Job, ...]

    @property
    def ends_at(self) -> datetime:
        """When the week is over."""
        return START + timedelta(days=DAYS)


def make_demand(seed: int = SEED, accounts: int = ACCOUNTS) -> Demand:
    """Make up a week of demand: the same for the same seed and number of accounts."""
    chance = random.Random(seed)  # noqa: S311 - a demo, not a secret
    names = [_name(index) for index in range(accounts)]
    chance.shuffle(names)
    people = tuple(
        _person(chance, name, Fraction(place, accounts)) for place, name in enumerate(names)
    )
    ends_at = START + timedelta(days=DAYS)
    asks = sorted(
        (at, index)
        for index, each in enumerate(people)
        for at in _times(chance, each)
        if at < ends_at
    )
    jobs = tuple(
        _job(chance, number, at, people[index]) for number, (at, index) in enumerate(asks, start=1)
    )
    return Demand(people, jobs)


def _name(index: int) -> str:
    turn, place = divmod(index, len(NAMES))
    return NAMES[place] if turn == 0 else f"{NAMES[place]}{turn + 1}"


def _person(chance: random.Random, name: str, rank: Fraction) -> Person:
    if rank < Fraction(1, 100):  # the few who ask hundreds of times a day
        asks = chance.randint(600, 1000)
    elif rank < Fraction(5, 100):  # those who ask every day
        asks = chance.randint(60, 170)
    else:
        asks = min(60, int(chance.paretovariate(0.95) * 2))
    heavy = asks >= 60  # noqa: PLR2004
    pro = chance.random() < (0.45 if heavy else 0.05)
    buys = chance.random() < (0.7 if heavy else 0.25)
    promo = 5 if chance.random() < 0.15 else 0  # noqa: PLR2004
    packs_max = chance.randint(3, 14) if buys else 0
    return Person(name, "pro" if pro else "standard", asks, packs_max, promo)


def _times(chance: random.Random, person: Person) -> Iterator[datetime]:
    """Yield when somebody asks: in sessions, more of them in the evening and on the weekend."""
    left = person.asks
    while left:
        size = min(left, chance.randint(1, 4 if person.asks < 20 else 40))  # noqa: PLR2004
        left -= size
        at = _session_start(chance)
        for _ in range(size):
            yield at
            at += timedelta(seconds=int(chance.expovariate(1 / 55)) + 4, microseconds=1)


def _session_start(chance: random.Random) -> datetime:
    weights = [WEEKEND if day >= 5 else 1.0 for day in range(DAYS)]  # noqa: PLR2004
    (day,) = chance.choices(range(DAYS), weights)
    (hour,) = chance.choices(range(24), HOURS)
    return START + timedelta(days=day, hours=hour, seconds=chance.randrange(3000))


def _job(chance: random.Random, number: int, at: datetime, person: Person) -> Job:
    ((seconds, quality),) = chance.choices([clip for clip, _ in CLIPS], [n for _, n in CLIPS])
    (fate,) = chance.choices([fate for fate, _ in FATES], [n for _, n in FATES])
    spread = chance.gauss(1.04, 0.11) + (0.9 if chance.random() < 0.02 else 0)  # noqa: PLR2004
    return Job(
        number=number,
        at=at,
        person=person,
        seconds=seconds,
        quality=quality,
        fate=fate,
        wait_seconds=3 + int(chance.expovariate(1 / 25)),
        gpu_factor=Decimal(max(60, round(spread * 100))) / 100,
    )
