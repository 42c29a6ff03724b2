"""Replay, sentence by sentence as the contract words it."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from policies import InvalidRequest, PolicySet
from quota import Comptroller
from quota.replay import replay
from quota.traces import read_trace

POLICIES = """
schema: 1
currency: usd
gpus: {a10: {usd_per_hour: 3.60}}
operations:
  image.generate:
    attributes:
      images: {type: integer, default: 1, min: 1, max: 4}
      note: {type: string, default: none}
      upscale: {type: boolean, default: false}
      ratio: {type: decimal, default: 1}
    weight: {each: {images: 1}}
    gpu_cost: {gpu: a10, gpu_seconds: {base: 1, each: {images: 0.0001}}}
    hold_for: {queued: 1h, running: 10h}
plans:
  small: {sources: [{kind: daily_allowance, units: 2}]}
  large: {sources: [{kind: daily_allowance, units: 5}]}
default_plan: small
on_release: {failed: {units: return}}
"""
HEADER = "at,account,operation,status,gpu_seconds"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
BATCH = 500


def row(after: str, status: str = "succeeded", seconds: object = 60, account: str = "ada") -> str:
    """A row, `after` START as H:MM:SS."""
    hours, minutes, rest = after.split(":")
    at = START + timedelta(hours=int(hours), minutes=int(minutes), seconds=float(rest))
    return f"{at.isoformat()},{account},image.generate,{status},{seconds}"


def run(*rows: str, header: str = HEADER, policies: str = POLICIES, form: str = "csv", **options):
    policy_set = PolicySet.parse(policies)
    lines = [f"{line}\n" for line in (header, *rows)]
    trace = read_trace(lines, form, policy_set, name="t.csv")
    return replay(trace, policy_set, name="t.csv", **options).as_dict()


def outcome(result: dict) -> dict[str, int]:
    names = ("granted", "denied", "settled", "released", "expired", "open")
    return {name: result[name] for name in names if result[name]}


# --- what the contract's files say ---------------------------------------------------------------


@pytest.mark.parametrize("plan", ["rolling", "berlin", "new_york", "by_image"])
def test_every_field_of_the_trace_of_edges_agrees(shared, plan):
    policy_set = PolicySet.load(shared / "examples" / "edge.yaml")
    expected = json.loads((shared / "data" / f"edge-cases.{plan}.json").read_text())
    with (shared / "data" / "edge-cases.csv").open(newline="") as lines:
        trace = read_trace(lines, "csv", policy_set, name="edge-cases.csv")
        found = replay(trace, policy_set, plan=plan).as_dict()
    for name, value in expected.items():
        assert found[name] == value, name


def test_the_production_trace_replays_row_by_row(shared):
    policy_set = PolicySet.load(shared / "examples" / "gentd26.yaml")
    with (shared / "data" / "gentd26-november.csv").open(newline="") as lines:
        first = [next(lines) for _ in range(1 + BATCH)]
    found = replay(read_trace(first, "gentd26", policy_set, name="november"), policy_set).as_dict()
    assert found["requests"] == BATCH
    assert found["invalid"] == 0
    assert found["requests"] == found["granted"] + found["denied"]
    ends = ("settled", "released", "expired", "open")
    assert found["granted"] == sum(found[end] for end in ends)
    assert sum(each["requests"] for each in found["accounts"].values()) == BATCH


# --- order of time -------------------------------------------------------------------------------


def test_a_row_out_of_order_is_refused_with_its_line():
    with pytest.raises(InvalidRequest, match=r"t\.csv:3: .* order of time"):
        run(row("1:00:00"), row("0:59:59"))


def test_a_row_out_of_order_is_refused_even_where_invalid_rows_are_skipped():
    with pytest.raises(InvalidRequest, match=r"t\.csv:4: "):
        run(row("1:00:00"), row("2:00:00", seconds=-1), row("1:30:00"), skip_invalid=True)


def test_a_time_without_a_zone_is_utc():
    naive = "2026-03-01 12:00:00,ada,image.generate,open,"
    assert run(row("0:00:00"), naive)["granted"] == 2


def test_a_time_in_another_zone_is_put_in_order_by_its_instant():
    berlin = "2026-03-01T13:00:00+01:00,ada,image.generate,open,"
    assert run(row("0:00:00"), berlin)["granted"] == 2


def test_a_time_that_cannot_be_read_is_refused_with_its_line():
    with pytest.raises(InvalidRequest, match=r"t\.csv:2: at `yesterday` is no time"):
        run("yesterday,ada,image.generate,open,", skip_invalid=True)


# --- ends and arrivals at one instant ------------------------------------------------------------


def test_an_end_comes_before_an_arrival_at_the_same_instant():
    failed = [row("0:00:00", "failed", 60), row("0:00:00", "failed", 60)]
    assert outcome(run(*failed, row("0:00:59"))) == {"granted": 2, "denied": 1, "open": 2}
    assert outcome(run(*failed, row("0:01:00"))) == {"granted": 3, "released": 2, "open": 1}


def test_an_end_that_a_row_creates_at_its_own_instant_precedes_the_next_row():
    rows = [row("0:00:00", "failed", 0) for _ in range(5)]
    assert outcome(run(*rows)) == {"granted": 5, "released": 4, "open": 1}


def test_an_expiry_comes_at_its_very_instant_before_the_arrival():
    held = [row("0:00:00", "open", ""), row("0:00:00", "open", "")]
    before = run(*held, row("0:59:59.999999"))
    at = run(*held, row("1:00:00"))
    assert outcome(before) == {"granted": 2, "denied": 1, "open": 2}
    assert outcome(at) == {"granted": 3, "expired": 2, "open": 1}
    assert at["units"] == {"daily_allowance": 1}


def test_a_hold_that_expired_is_counted_though_nobody_wrote_to_its_account_again():
    found = run(row("0:00:00", "open", ""), row("1:00:00", account="bob"))
    assert outcome(found) == {"granted": 2, "expired": 1, "open": 1}
    assert found["accounts"]["ada"]["units"] == 0


# --- how a row ends ------------------------------------------------------------------------------


def test_a_success_settles_with_its_seconds_and_keeps_its_units():
    found = run(row("0:00:00", "succeeded", "2.5"), row("2:00:00"))
    assert outcome(found) == {"granted": 2, "settled": 1, "open": 1}
    assert found["gpu_cost_micro_usd"] == {"estimated": 2 * 1001, "actual": 2500}
    assert found["units"] == {"daily_allowance": 2}


def test_a_failure_releases_as_failed_with_its_seconds():
    found = run(row("0:00:00", "failed", "2.5"), row("2:00:00", "open", ""))
    assert outcome(found) == {"granted": 2, "released": 1, "open": 1}
    assert found["gpu_cost_micro_usd"]["actual"] == 2500
    assert found["units"] == {"daily_allowance": 1}
    charged = POLICIES.replace("failed: {units: return}", "failed: {units: charge}")
    found = run(row("0:00:00", "failed", "2.5"), row("2:00:00", "open", ""), policies=charged)
    assert found["units"] == {"daily_allowance": 2}


def test_an_operation_that_runs_on_no_gpu_of_ours_costs_what_was_estimated():
    vendor = POLICIES.replace(
        "gpu_cost: {gpu: a10, gpu_seconds: {base: 1, each: {images: 0.0001}}}",
        "gpu_cost: {usd: 0.04}",
    )
    found = run(row("0:00:00"), row("0:00:00", "failed"), row("0:30:00"), policies=vendor)
    assert outcome(found) == {"granted": 3, "settled": 1, "released": 1, "open": 1}
    assert found["gpu_cost_micro_usd"] == {"estimated": 120_000, "actual": 80_000}


def test_zero_seconds_is_a_time():
    found = run(row("0:00:00", "succeeded", 0), row("0:00:01", "open", ""))
    assert outcome(found) == {"granted": 2, "settled": 1, "open": 1}
    assert found["gpu_cost_micro_usd"]["actual"] == 0


def test_a_time_that_is_not_before_the_expiry_expires():
    last = row("3:00:00", account="bob")
    just_before = run(row("0:00:00", "succeeded", "3599.9999999"), last)
    at_expiry = run(row("0:00:00", "succeeded", "3600"), last)
    assert outcome(just_before) == {"granted": 2, "settled": 1, "open": 1}
    assert outcome(at_expiry) == {"granted": 2, "expired": 1, "open": 1}
    assert at_expiry["gpu_cost_micro_usd"]["actual"] == 0, "a late end is never sent"
    assert at_expiry["units"] == {"daily_allowance": 1}


@pytest.mark.parametrize("status", ["open", "processing", ""])
def test_any_other_status_stays_open_until_it_expires(status):
    found = run(row("0:00:00", status, 5), row("1:00:00", "open", "", account="bob"))
    assert outcome(found) == {"granted": 2, "expired": 1, "open": 1}


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_row_without_a_time_stays_open_until_it_expires(status):
    found = run(row("0:00:00", status, ""), row("1:00:00", "open", "", account="bob"))
    assert outcome(found) == {"granted": 2, "expired": 1, "open": 1}


def test_an_expired_hold_is_charged_where_the_policy_file_says_so():
    charging = POLICIES + "on_expire: charge\n"
    found = run(row("0:00:00", "open", ""), row("1:00:00", account="bob"), policies=charging)
    assert outcome(found) == {"granted": 2, "expired": 1, "open": 1}
    assert found["accounts"]["ada"]["units"] == 1


def test_the_life_of_a_hold_is_that_of_queued_work():
    rows = [row("0:00:00", "succeeded", 5400), row("1:00:00", account="bob")]
    assert run(*rows)["expired"] == 1


def test_after_the_last_row_is_decided_nothing_more_happens():
    found = run(row("0:00:00"), row("0:01:00", "succeeded", 0))
    assert outcome(found) == {"granted": 2, "settled": 1, "open": 1}


@pytest.mark.parametrize(
    "wrong",
    [row("5:00:00", seconds=-1), row("5:00:00", account=""), row("5:00:00").replace("i", "")],
)
def test_an_invalid_last_row_makes_nothing_happen(wrong):
    found = run(row("0:00:00"), wrong, skip_invalid=True)
    assert outcome(found) == {"granted": 1, "open": 1}
    assert found["invalid"] == 1


def test_units_that_come_back_to_a_window_that_has_closed_are_not_counted():
    late = POLICIES.replace("queued: 1h", "queued: 60h")
    found = run(row("0:00:00", "failed", 180_000), row("51:00:00"), policies=late)
    assert found["units"] == {"daily_allowance": 1}


# --- plans, members, attributes ------------------------------------------------------------------


def test_the_plan_column_is_the_plan_and_an_empty_cell_the_accounts_own():
    rows = [f"{row('0:00:00', 'open', '')},{plan}" for plan in ("large",) * 3 + ("",)]
    assert outcome(run(*rows, header=f"{HEADER},plan")) == {"granted": 3, "denied": 1, "open": 3}


def test_the_option_plan_beats_the_column():
    rows = [f"{row('0:00:00', 'open', '')},large" for _ in range(3)]
    found = run(*rows, header=f"{HEADER},plan", plan="small")
    assert outcome(found) == {"granted": 2, "denied": 1, "open": 2}


def test_an_unknown_plan_is_refused_before_anything_is_read():
    with pytest.raises(InvalidRequest, match="unknown plan `huge`"):
        run(plan="huge", skip_invalid=True)


def test_members_share_the_account_unless_a_policy_looks_at_them():
    by_member = POLICIES.replace("units: 2}", "units: 2, scope: member}")
    rows = [f"{row('0:00:00', 'open', '')},{who}" for who in ("eve", "eve", "mel", "eve")]
    found = run(*rows, header=f"{HEADER},member", policies=by_member)
    assert outcome(found) == {"granted": 3, "denied": 1, "open": 3}


def test_attributes_take_their_declared_types_and_empty_cells_the_defaults():
    header = f"{HEADER},attr.images,attr.note,attr.upscale,attr.ratio"
    rows = [
        f"{row('0:00:00', 'open', '')},2.0,8.0,TRUE,1.5",
        f"{row('0:00:00', 'open', '', 'bob')},,,,",
    ]
    found = run(*rows, header=header)
    assert found["accounts"]["ada"]["units"] == 2
    assert found["accounts"]["bob"]["units"] == 1


INVALID = [
    ("out of range", "9,x,true,1"),
    ("fractional", "1.5,x,true,1"),
    ("not a number", "two,x,true,1"),
    ("a spelling of a number that has no end", "1e999999999,x,true,1"),
    ("neither true nor false", "1,x,maybe,1"),
    ("NaN", "1,x,true,nan"),
]


@pytest.mark.parametrize(
    "cells", [cells for _, cells in INVALID], ids=[name for name, _ in INVALID]
)
def test_a_value_that_is_not_allowed_stops_the_replay_or_is_counted(cells):
    header = f"{HEADER},attr.images,attr.note,attr.upscale,attr.ratio"
    rows = [f"{row('0:00:00')},1,x,true,1", f"{row('0:01:00')},{cells}"]
    with pytest.raises(InvalidRequest, match=r"^t\.csv:3: "):
        run(*rows, header=header)
    found = run(*rows, header=header, skip_invalid=True)
    assert (found["requests"], found["invalid"]) == (1, 1)
    assert found["accounts"]["ada"]["requests"] == 1


@pytest.mark.parametrize("seconds", ["-1", "-0.001", "nan", "inf", "soon", "1e999999999"])
def test_a_negative_or_unreadable_time_on_the_gpu_is_invalid(seconds):
    with pytest.raises(InvalidRequest, match=r"^t\.csv:2: the time on the GPU"):
        run(row("0:00:00", "succeeded", seconds))
    assert run(row("0:00:00", "open", seconds), skip_invalid=True)["invalid"] == 1


def test_a_row_of_an_unknown_operation_or_an_empty_account_is_invalid():
    unknown = row("0:00:00").replace("image.generate", "image.genrate")
    with pytest.raises(InvalidRequest, match=r"t\.csv:2: unknown operation .*image\.generate"):
        run(unknown)
    assert run(unknown, row("0:00:01", account=""), skip_invalid=True)["invalid"] == 2


def test_a_row_with_too_few_or_too_many_cells_is_invalid():
    short, long = row("0:00:00").rsplit(",", 1)[0], f"{row('0:00:01')},surplus"
    with pytest.raises(InvalidRequest, match=r"t\.csv:2: has 4 cells where the header has 5"):
        run(short)
    assert run(short, long, row("0:00:02"), skip_invalid=True)["invalid"] == 2


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("at,account,operation,status", "column `gpu_seconds` is missing"),
        (f"{HEADER},at", "column `at` is there twice"),
        (f"{HEADER},images", "unknown column `images`"),
        (f"{HEADER},attr.", r"unknown column `attr\.`"),
    ],
)
def test_a_header_that_is_none_is_refused(header, message):
    with pytest.raises(InvalidRequest, match=rf"t\.csv:1: {message}"):
        run(header=header)


def test_an_empty_file_is_refused_and_an_empty_trace_is_not():
    policy_set = PolicySet.parse(POLICIES)
    with pytest.raises(InvalidRequest, match=r"t\.csv:1: is empty"):
        list(read_trace([], "csv", policy_set, name="t.csv"))
    assert run()["requests"] == 0


# --- gentd26 -------------------------------------------------------------------------------------

GENTD26 = (
    "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,prompt_length,"
    "num_images_per_prompt,num_inference_steps,checkpoint_model_version_id,num_lora"
)


def test_a_gentd26_row_passes_the_attributes_that_the_operation_declares():
    rows = [
        "2026-03-01 12:00:00,TXT_2_IMG,SUCCEED,30.0,G1,63.0,2.0,30.0,M1,0",
        "2026-03-01 12:00:00,ANYTHING,FAILED,0,G2,,,,,",
        "2026-03-01 12:00:00,IMG_2_IMG,PENDING,,G3,,1.0,,,",
        "2026-03-01 14:00:00,IMG_2_IMG,PROCESSING,7.0,G4,,1.0,,,",
    ]
    found = run(*rows, header=GENTD26, form="gentd26")
    assert outcome(found) == {"granted": 4, "settled": 1, "released": 1, "expired": 1, "open": 1}
    assert found["accounts"]["G1"]["units"] == 2, "8.0 is the integer 8"
    with pytest.raises(InvalidRequest, match=r"t\.csv:2: `images` must be between 1 and 4"):
        run(rows[0].replace("2.0", "8.0"), header=GENTD26, form="gentd26")


# --- totals --------------------------------------------------------------------------------------


def test_an_invalid_row_appears_in_invalid_alone():
    found = run(row("0:00:00", seconds=-1, account="eve"), row("0:00:01"), skip_invalid=True)
    assert found["requests"] == found["granted"] + found["denied"] == 1
    assert found["invalid"] == 1
    assert "eve" not in found["accounts"]


def test_each_denial_counts_once_by_its_reason():
    found = run(*(row("0:00:00", "open", "") for _ in range(5)))
    assert found["denied_by_reason"] == {"allowance_exhausted": 3}
    assert found["denied"] == 3


def test_rows_share_nothing_by_their_keys():
    again = row("0:00:00", "open", "")
    assert run(again, again)["granted"] == 2


def test_the_policy_version_and_plain_integers_are_reported():
    found = run(row("0:00:00"))
    assert found["policy_version"] == PolicySet.parse(POLICIES).version
    assert json.loads(json.dumps(found)) == found
    assert found["revenue_minor"] == 0


# --- the database --------------------------------------------------------------------------------


def test_a_database_that_holds_grants_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'books.db'}"
    assert run(row("0:00:00"), database=url)["granted"] == 1
    with pytest.raises(InvalidRequest, match="holds grants already"):
        run(row("0:00:00"), database=url)


def test_the_books_of_a_replay_are_there_to_be_read(tmp_path):
    url = f"sqlite:///{tmp_path / 'books.db'}"
    run(row("0:00:00", "open", ""), row("1:00:00", account="bob"), database=url)
    with Comptroller.open(PolicySet.parse(POLICIES), url, clock=lambda: START) as comptroller:
        (grant,) = comptroller.grants("ada")
        assert (grant.key, grant.status) == ("1", "expired")


def peak_of(rows: int) -> int:
    """Return the most bytes that a replay of so many rows held at one time."""
    policy_set = PolicySet.parse(POLICIES)
    lines = (f"{row(f'0:{n // 60}:{n % 60}', 'failed', 1)}\n" for n in range(rows))
    trace = read_trace(_after(f"{HEADER}\n", lines), "csv", policy_set, name="t.csv")
    tracemalloc.start()
    try:
        replay(trace, policy_set)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_rows():
    peak_of(900)  # fills caches, which are bounded
    # When cycles are collected differs from run to run and only ever adds: what is held for sure is the least.
    assert min(peak_of(900) for _ in range(4)) < min(peak_of(100) for _ in range(4)) + 200_000


def _after(first, rest):
    yield first
    yield from rest
