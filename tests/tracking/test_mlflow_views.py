"""Saved views name what runs have, fit in what MLflow's page draws, and open with filled charts."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from harness.identity import content_hash
from harness.tracking.connection import default_uri, open_client
from harness.tracking.outbox import Outbox
from harness.tracking.rows import Plan, read_plan
from harness.tracking.server import serve
from harness.tracking.views import PAGE, TAG, View, view_state, view_url, views
from harness.types import InputError
from tests.tracking.sweeps import config, make_sweep, read_runs, write_plan


def plan_of(folder: Path, objectives: int, seeds: int) -> Plan:
    """A plan of two misalignments, clean and flipped labels."""
    cells = [
        (f"o{o}", rate, seed, dial)
        for o in range(objectives)
        for rate in (0.0, 0.4)
        for seed in range(seeds)
        for dial in (0.0, 0.75)
    ]
    runs = []
    for objective, rate, seed, dial in cells:
        own = config(objective, 0.5, rate, seed, dial)
        runs.append({"run_key": content_hash(own), "name": f"{objective} {rate} {dial} s{seed}", "config": own})
    folder.mkdir(exist_ok=True)
    write_plan(folder, runs)
    return read_plan(folder)


def test_conditions_are_told_in_what_differs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "s", 2, 2)
    assert set(plan.conditions.values()) == {
        "refwrong=0.0 clean",
        "refwrong=0.0 uniform_flip 0.4",
        "refwrong=0.75 clean",
        "refwrong=0.75 uniform_flip 0.4",
    }


def test_long_conditions_get_views_of_their_own(tmp_path: Path) -> None:
    runs = []
    for end in ("one", "two"):
        own = config("dpo", 0.5, 0.4, 0)
        own["corruption"]["params"] = [["table", "it's " + "x" * 300 + end]]
        runs.append({"run_key": content_hash(own), "name": end, "config": own})
    write_plan(tmp_path, runs)
    plan = read_plan(tmp_path)
    one, two = plan.conditions.values()
    assert one != two
    assert max(len(one), len(two)) < 220
    assert "'" not in one
    assert len({view.slug for view in views(plan)}) == 4 + 2


def test_legends_leave_out_what_all_runs_share(tmp_path: Path) -> None:
    named = ("dpo b=2 flip=0.2 refwrong=0.75 s0", "dpo b=2 refwrong=0.75 s0", "ipo b=2 refwrong=0.75 s0")
    runs = [{"run_key": f"k{i}", "name": n, "config": config("dpo", 2.0, 0.2, 0)} for i, n in enumerate(named)]
    write_plan(tmp_path, runs)
    assert list(read_plan(tmp_path).names.values()) == ["dpo b=2 flip=0.2 s0", "dpo b=2 s0", "ipo b=2 s0"]
    write_plan(tmp_path, [*runs, {**runs[0], "run_key": "other", "name": "dpo b=2 refwrong=0 s0"}])
    assert read_plan(tmp_path).names["other"] == "dpo b=2 refwrong=0 s0"  # a dial that varies is told
    write_plan(tmp_path, runs[:1])
    assert list(read_plan(tmp_path).names.values()) == [named[0]]  # of one run, everything


def test_outcomes_are_drawn_against_what_varies_among_the_runs_shown(tmp_path: Path) -> None:
    """Sixteen runs of one beta: two rates and two dials vary in the sweep, neither within a condition."""
    plan = plan_of(tmp_path / "s", 2, 2)
    whole, within = (view for view in views(plan) if view.slug in ("comparison", "only-refwrong-0.75-clean"))
    assert against(whole) == ["final/kl", "objective.name", "corruption.rate", "world.misaligned"]
    assert "PARALLEL" in [chart["type"] for chart in whole.charts]
    assert against(within) == ["final/kl", "objective.name"]
    assert "PARALLEL" not in [chart["type"] for chart in within.charts]


def against(view: View) -> list[str]:
    """What a view draws the final ranking accuracy against."""
    scatters = [chart for chart in view.charts if chart["type"] == "SCATTER"]
    return [chart["xaxis"]["key"] for chart in scatters if chart["yaxis"]["key"] == "final/ranking_accuracy"]


def test_a_small_sweep_opens_with_all_its_runs(tmp_path: Path) -> None:
    first, *others = views(plan_of(tmp_path / "s", 2, 2))
    assert (first.slug, first.name) == ("comparison", "Sweep comparison")
    assert "harness.condition" not in first.runs
    assert [view.name for view in others[:3]] == ["By objective", "Geometry", "Averages by objective"]
    assert len({view.slug for view in others}) == len(others) == 3 + 4


def test_a_large_sweep_opens_with_a_condition_that_the_page_can_draw(tmp_path: Path) -> None:
    """80 runs a condition, 320 in all: the page would draw the first 100 and hide the rest without a word."""
    plan = plan_of(tmp_path / "s", 8, 10)
    assert len(plan.names) > PAGE
    first, *others = views(plan)
    condition = "refwrong=0.75 clean"
    assert (first.slug, first.name) == ("comparison", f"Sweep comparison: {condition}")
    assert sum(name == condition for name in plan.conditions.values()) == 80
    filtered = f"tags.`harness.condition` = '{condition}'"
    assert all(filtered in view.runs for view in (first, *others[:3]))
    assert set(plan.conditions.values()) - {condition} <= {view.name for view in others}
    state = view_state(first)
    assert (state["orderByKey"], state["orderByAsc"]) == ("params.`seed`", True)


def decode_state(text: str) -> dict[str, Any]:
    """A saved view as MLflow's page reads it."""
    head, _, body = text.partition(";")
    assert head == "deflate"
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(body, validate=True)))
    return state


def test_views_as_written_name_what_the_runs_have(out: Path) -> None:
    sweep = make_sweep(out, rates=(0.0, 0.4))
    assert Outbox(sweep).finish() == 0
    client = open_client(default_uri(out))
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], filter_string="tags.`harness.kind` = 'run'")
    metrics, params = set(runs[0].data.metrics), set(runs[0].data.params)
    written = {name: json.loads(value) for name, value in experiment.tags.items() if name.startswith(TAG)}
    assert f"{TAG}comparison" in written
    for saved in written.values():
        state = decode_state(saved["state"])
        found = client.search_runs([experiment.experiment_id], filter_string=state["searchFilter"])
        assert 0 < len(found) <= PAGE
        sections = {section["uuid"] for section in state["compareRunSections"]}
        assert len(state["compareRunCharts"]) >= 5
        for chart in state["compareRunCharts"]:
            used_metrics, used_params = names_in(chart)
            assert used_metrics <= metrics
            assert used_params <= params
            assert chart["metricSectionId"] in sections
            assert len(used_metrics | used_params) <= 4
    address = view_url("", experiment.experiment_id).removeprefix("/")
    assert experiment.tags["mlflow.note.content"].startswith(f"[Sweep comparison]({address}) | [By objective](")


def names_in(chart: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The metrics and params that a chart draws."""
    metrics, params = set(chart.get("selectedMetrics", ())), set(chart.get("selectedParams", ()))
    metrics |= {chart["metricKey"]} if "metricKey" in chart else set()
    for axis in (chart.get("xaxis"), chart.get("yaxis")):
        if axis:
            (params if axis["type"] == "PARAM" else metrics).add(axis["key"])
    return metrics, params


def test_views_of_conditions_that_left_the_plan_go_and_users_own_stay(out: Path) -> None:
    sweep = make_sweep(out)
    Outbox(sweep).finish()
    client = open_client(default_uri(out))
    experiment = client.get_experiment_by_name("tiny").experiment_id
    client.set_experiment_tag(experiment, f"{TAG}mine", "{}")
    assert f"{TAG}only-uniform_flip-0.4" in client.get_experiment(experiment).tags
    write_plan(sweep, [run for run in read_runs(sweep) if run["config"]["corruption"]["kind"] == "none"])
    Outbox(sweep).finish()
    tags = client.get_experiment(experiment).tags
    assert f"{TAG}only-uniform_flip-0.4" not in tags
    assert f"{TAG}mine" in tags


def test_a_folder_without_a_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no mlflow\.db"):
        serve(tmp_path)
