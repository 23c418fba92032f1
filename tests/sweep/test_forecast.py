"""The forecast of a plan: hand arithmetic, and a rehearsal of sleeping packs on real worker processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.config.load import load_sweep
from harness.identity import run_key
from harness.sweep.engines.process import run_tasks
from harness.sweep.estimates import START_SECONDS, Machines, forecast, forecast_lines, makespan
from harness.sweep.packing import plan_packs
from harness.sweep.plan import describe, render
from harness.sweep.signals import Stop
from harness.worker.protocol import Event
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
    alone = forecast(todo, [60.0] * 5, {}, tmp_path, Machines("process", 1))
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


@dataclass(frozen=True)
class Nap:
    number: int
    seconds: float


def sleep(task: Nap, _: Any) -> Iterator[Event]:
    """A pack in a rehearsal: it only takes its time."""
    if task.number < 0:
        yield Event("built", task.number)
        return
    time.sleep(task.seconds)
    yield Event("done", task.number)


def test_a_rehearsal_takes_as_long_as_forecast(tmp_path: Path) -> None:
    """Packs that sleep for what their runs are said to take, on two worker processes: within 30 % of the forecast."""
    todo, places = runs(6).runs, 2
    per_run = [0.2 + 0.05 * (number % 5) for number in range(len(todo))]
    found = forecast(todo, per_run, {}, tmp_path, Machines("process", places))
    seconds = dict(zip(map(run_key, todo), per_run, strict=True))
    packs = [sum(seconds[run_key(run)] for run in pack.runs) for pack in plan_packs(todo, places)]
    naps = [Nap(number, pack) for number, pack in enumerate(sorted(packs, reverse=True))]
    ready = [Nap(-1, 0.0), Nap(-2, 0.0)]  # a start takes as long as the machine is busy: it is not what is measured
    began, took = 0.0, 0.0
    for message in run_tasks(sleep, [*ready, *naps], None, places, Stop()):
        if message.kind == "built":
            began = time.monotonic()
        took = time.monotonic() - began
    expected = found["hours"] * 3600 - START_SECONDS["process"]
    print(f"{len(naps)} packs: forecast {expected:.2f} s, took {took:.2f} s")
    assert took == pytest.approx(expected, rel=0.3)
