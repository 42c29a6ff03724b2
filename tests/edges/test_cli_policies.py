"""`comptroller policies`: check, diff, schema, explain."""

from __future__ import annotations

import json

from tests.edges.conftest import POLICIES


def test_a_good_file_is_summed_up(cli, product):
    said = cli("policies", "check", "policies.yaml")
    assert said.code == 0
    assert "policies.yaml: ok" in said.out
    assert "2 plans" in said.out
    assert cli("policies", "check", "policies.yaml", "--json").json["ok"] is True


def test_a_bad_file_has_all_its_problems_listed_and_exit_code_1(cli, product):
    (product.folder / "bad.yaml").write_text(POLICIES.replace("units: 2}", "untis: 2}"))
    said = cli("policies", "check", "bad.yaml", "policies.yaml")
    assert said.code == 1
    assert "bad.yaml:" in said.out
    assert "untis" in said.out
    checked = cli("policies", "check", "bad.yaml", "--json")
    assert checked.code == 1
    assert checked.json["ok"] is False
    assert checked.json["problems"]


def test_a_file_that_is_not_there_is_a_problem_too(cli):
    said = cli("policies", "check", "nowhere.yaml")
    assert said.code == 1
    assert "nowhere.yaml: no such file or directory" in said.out


def test_a_diff_says_what_changes(cli, product):
    (product.folder / "cut.yaml").write_text(POLICIES.replace("units: 20}", "units: 6}"))
    said = cli("policies", "diff", "policies.yaml", "cut.yaml")
    assert said.code == 0
    assert "takes" in said.out
    assert "pro" in said.out
    changes = cli("policies", "diff", "policies.yaml", "cut.yaml", "--json").json["changes"]
    assert changes[0]["effect"] == "tightens"
    assert "nothing changes" in cli("policies", "diff", "cut.yaml", "cut.yaml").out


def test_the_schema_is_json(cli, product):
    assert cli("policies", "schema").json["title"]
    assert cli("policies", "schema", "--json").json["title"]
    cli("policies", "schema", "--out", "schema.json")
    assert json.loads((product.folder / "schema.json").read_text())["title"]


def test_a_request_is_explained_plan_by_plan(cli, product):
    said = cli("policies", "explain", "policies.yaml", "--operation", "image.generate")
    assert said.code == 0
    assert "plan free" in said.out
    assert "plan pro" in said.out


def test_attributes_are_given_one_after_the_other_or_each_with_its_option(cli, product):
    explain = ("policies", "explain", "policies.yaml", "--operation", "image.generate", "--json")
    listed = cli(*explain, "--attributes", "images=3", "size=large", "--plan", "pro").json
    repeated = cli(*explain, "--plan", "pro", "-a", "images=3", "-a", "size=large").json
    joined = cli(*explain, "--plan", "pro", "--attributes", "images=3,size=large").json
    assert listed == repeated == joined
    assert listed["gpu_cost_micro_usd"] == 7000
    assert listed["plans"][0]["sources"][0]["units"] == 3


def test_what_cannot_be_asked_for_is_refused(cli, product):
    explain = ("policies", "explain", "policies.yaml")
    assert "images" in cli(*explain, "--attributes", "images=9").err
    assert cli(*explain, "--attributes", "images").code == 2
    assert "unknown operation" in cli(*explain, "--operation", "image.draw").err
    assert "unknown plan" in cli(*explain, "--plan", "gold").err
