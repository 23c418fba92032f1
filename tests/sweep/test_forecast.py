"""The forecast of a plan: hand arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.api import plan
from harness.config.load import load_sweep
from harness.sweep.estimates import START_SECONDS, Machines, forecast, forecast_lines, makespan
from harness.sweep.plan import describe, render
from tests.tracking.sweeps import POINTS, make_sweep

ROOT = Path(__file__).resolve().parents[2]


def runs(seeds: int = 1):
    return load_sweep(ROOT / "experiments/smoke.yaml", [f"seeds={seeds}"])


@pytest.mark.parametrize(
    ("seconds", "places", "wall"),
    [([], 3, 0.0), ([5.0], 1, 5.0), ([3.0, 2.0, 2.0], 2, 4.0), ([3.0, 2.0, 2.0], 1, 7.0), ([1.0] * 9, 4, 3.0)],
)
def test_makespan_by_hand(seconds: list[float], places: int, wall: float) -> None:
    assert makespan(seconds, places) == wall


def test_hours_by_hand(tmp_path: Path) -> None:
    """Five runs of 60 s on five places, one model of each stage before: one start, two stages, one run."""
    todo = runs().runs
    builds = {"pretraining": (30.0, 1), "reference": (20.0, 1)}
    found = forecast(todo, [60.0] * 5, builds, tmp_path, Machines("process", 5))
    start = START_SECONDS["process"]
    assert found["packs"] == 5
    assert found["hours"] == pytest.approx((start + 30 + start + 20 + start + 60) / 3600, abs=1e-4)
    alone = forecast(todo, [300.0], {}, tmp_path, Machines("process", 1))
    assert alone["hours"] == pytest.approx((start + 300) / 3600, abs=1e-4)
    assert forecast([], [], {}, tmp_path, Machines("ray", 8))["hours"] == 0


def test_points_and_bytes_are_those_of_earlier_runs(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    sizes = [sum(f.stat().st_size for f in path.parent.iterdir()) for path in sweep.glob("*/result.json")]
    found = forecast(runs(4).runs, [1.0] * 20, {}, tmp_path, Machines("process", 2))
    assert found["points"] == 20 * POINTS
    assert found["bytes"] == round(20 * sum(sizes) / len(sizes))
    assert found["basis"] == "points and bytes: as in 4 runs here"


def test_a_load_that_one_server_cannot_take_is_said(tmp_path: Path) -> None:
    many = forecast(runs(40).runs, [0.1] * 200, {}, tmp_path, Machines("ray", 200))
    assert any("above the 500 points per second" in line for line in forecast_lines(many))


def test_plan_shows_it_only_where_it_was_asked_for(tmp_path: Path) -> None:
    assert "forecast" not in describe(runs(), tmp_path)
    text = render(describe(runs(), tmp_path, Machines("slurm", 16)))
    assert "packs, 16 at a time, on slurm" in text


def test_inline_trains_one_pack_at_a_time(tmp_path: Path) -> None:
    for workers in (None, 4):
        found = plan(ROOT / "experiments/smoke.yaml", out=tmp_path, engine="inline", workers=workers)
        assert found.facts["forecast"]["places"] == 1
