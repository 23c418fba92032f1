"""Saved views name what runs have, fit in what MLflow's page draws, and open with filled charts."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.names import content_hash
from harness.tracking.mlflow_outbox import Outbox
from harness.tracking.mlflow_rows import Plan, read_plan
from harness.tracking.mlflow_server import serve
from harness.tracking.mlflow_store import default_uri, open_client
from harness.tracking.mlflow_views import PAGE, TAG, decode_state, view_state, view_url, views
from harness.types import InputError
from tests.conftest import BROWSERS
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
        "misaligned=0.0 clean",
        "misaligned=0.0 uniform_flip 0.4",
        "misaligned=0.75 clean",
        "misaligned=0.75 uniform_flip 0.4",
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
    assert len({view.slug for view in views(plan)}) == 4


def test_a_small_sweep_opens_with_all_its_runs(tmp_path: Path) -> None:
    first, *others = views(plan_of(tmp_path / "s", 2, 2))
    assert (first.slug, first.name) == ("comparison", "All runs")
    assert "harness.condition" not in first.runs
    assert len({view.slug for view in others}) == len(others) == 5


def test_a_large_sweep_opens_with_a_condition_that_the_page_can_draw(tmp_path: Path) -> None:
    """80 runs a condition, 320 in all: the page would draw the first 100 and hide the rest without a word."""
    plan = plan_of(tmp_path / "s", 8, 10)
    assert len(plan.names) > PAGE
    first, *others = views(plan)
    assert (first.slug, first.name) == ("comparison", "misaligned=0.75 clean")
    assert "tags.`harness.condition` = 'misaligned=0.75 clean'" in first.runs
    assert sum(name == first.name for name in plan.conditions.values()) == 80
    shown = {view.name for view in (first, *others)}
    assert set(plan.conditions.values()) <= shown
    state = view_state(first)
    assert (state["orderByKey"], state["orderByAsc"]) == ("params.`seed`", True)


def test_views_as_written_name_what_the_runs_have(out: Path) -> None:
    sweep = make_sweep(out, rates=(0.0, 0.4))
    assert Outbox(out, "tiny").finish(sweep) == 0
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
        assert len(state["compareRunCharts"]) == 6
        for chart in state["compareRunCharts"]:
            used_metrics, used_params = names_in(chart)
            assert used_metrics <= metrics
            assert used_params <= params
            assert chart["metricSectionId"] in sections
            assert len(used_metrics | used_params) <= 4
    address = view_url("", experiment.experiment_id).removeprefix("/")
    assert experiment.tags["mlflow.note.content"].startswith(f"[All runs]({address})")


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
    Outbox(out, "tiny").finish(sweep)
    client = open_client(default_uri(out))
    experiment = client.get_experiment_by_name("tiny").experiment_id
    client.set_experiment_tag(experiment, f"{TAG}mine", "{}")
    assert f"{TAG}only-uniform_flip-0.4" in client.get_experiment(experiment).tags
    write_plan(sweep, [run for run in read_runs(sweep) if run["config"]["corruption"]["kind"] == "none"])
    Outbox(out, "tiny").finish(sweep)
    tags = client.get_experiment(experiment).tags
    assert f"{TAG}only-uniform_flip-0.4" not in tags
    assert f"{TAG}mine" in tags


def test_a_folder_without_a_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no mlflow\.db"):
        serve(tmp_path)


@pytest.mark.browser
def test_the_printed_address_opens_with_filled_charts(tmp_path: Path) -> None:
    """The dashboard as a user has it: served on loopback only, opened in a browser, ended from outside."""
    sweep = make_sweep(tmp_path, objectives=("dpo", "ipo", "simpo"), seeds=2)
    assert Outbox(tmp_path, "tiny").finish(sweep) == 0
    code = "import sys; from pathlib import Path; from harness.tracking import mlflow_server as m"
    code += "; sys.exit(m.serve(Path(sys.argv[1])))"
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        match = re.fullmatch(r"tiny: (http://127\.0\.0\.1:(\d+)/#/experiments/\S+viewStateShareKey=comparison)\n", line)
        assert match, f"{line!r}\n{(tmp_path / 'server.log').read_text()[-2000:]}"
        port = int(match[2])
        assert foreign_host_is_refused(port)
        lines = drawn_lines(match[1], tmp_path, 15_000) or drawn_lines(match[1], tmp_path, 60_000)
        assert lines >= 3 * 12  # three charts over steps, twelve runs each
    finally:
        server.send_signal(signal.SIGTERM)
        stopped = server.wait(timeout=30)
    assert stopped == 0, (tmp_path / "server.log").read_text()[-2000:]
    for _ in range(50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    pytest.fail("the server is still there")


def foreign_host_is_refused(port: int) -> bool:
    """Whether a page of another site, resolved to this machine, is turned away."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": "evil.example"})
    return connection.getresponse().status == 403


def drawn_lines(url: str, folder: Path, budget_ms: int) -> int:
    """How many lines the page's charts draw, after `budget_ms` of the browser's own time."""
    browser = next(found for found in map(shutil.which, BROWSERS) if found)
    quiet = ("gpu", "quic", "background-networking", "component-update", "sync")
    flags = [
        "--headless",
        "--no-sandbox",
        "--no-first-run",
        "--no-proxy-server",
        *(f"--disable-{name}" for name in quiet),
    ]
    place = [f"--user-data-dir={folder / f'browser-{budget_ms}'}", "--window-size=1600,1400"]
    run = [browser, *flags, *place, f"--virtual-time-budget={budget_ms}", "--dump-dom", url]
    page = subprocess.run(run, capture_output=True, text=True, timeout=120, check=True).stdout
    return page.count('class="js-line"')
