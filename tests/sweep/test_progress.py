"""Progress: stages with counts, steps inside packs, and time left from what phases have really taken."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.objectives.registry import resolve
from harness.storage.atomic import read_json, write_json
from harness.storage.lock import sweep_lock
from harness.sweep import progress as module
from harness.sweep.estimates import run_seconds
from harness.sweep.progress import Progress, Speed
from harness.sweep.status import read_status
from harness.text import duration
from harness.types import CorruptionSpec, EvaluationSpec, PlannedRun, RunSpec, RunStatus, TrainingSpec, WorldSpec
from harness.worker.protocol import (
    Failure,
    FailureKind,
    PackStep,
    PackTask,
    Phase,
    RunDone,
    Scored,
    TaskFailed,
)

RUN = RunSpec(
    resolve("dpo", {"beta": 2.0}),
    CorruptionSpec(),
    TrainingSpec(),
    EvaluationSpec(checkpoints=3),
    seed=0,
    world=WorldSpec(),
)
STEPS = RUN.training.steps


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def pack(number: int, lanes: int) -> PackTask:
    return PackTask(number, tuple(PlannedRun(f"{number}{n}", "x", replace(RUN, seed=n)) for n in range(lanes)))


def quiet(runs: int, workers: int = 1, **more) -> Progress:
    return Progress(Console(quiet=True), runs, workers=workers, **more)


def play(progress: Progress, clock: Clock, number: int, step_seconds: float, measure_seconds: float) -> None:
    """Train a pack whose steps and evaluations take so long, up to its sampling."""
    for step in (0, STEPS // 2, STEPS):
        progress.take(PackStep(number, step, STEPS, Phase.EVALUATING, 100 * step))
        clock.now += measure_seconds
        if step < STEPS:
            progress.take(PackStep(number, step, STEPS, Phase.TRAINING, 100 * step))
            clock.now += step_seconds * STEPS // 2
    progress.take(PackStep(number, STEPS, STEPS, Phase.SAMPLING, 100 * STEPS))


def test_time_left_follows_each_phase(clock):
    """Steps take 100 times as long as assumed and evaluations 10 times: the estimate is right after one of each."""
    one = run_seconds(RUN)
    step, measured = 100 * 2 * one.training / STEPS, 10 * 2 * one.evaluation / 3
    with quiet(2) as progress:
        progress.start_runs([pack(0, 2)])
        assert progress.eta() is None and "measuring speed" in progress.line()
        progress.take(PackStep(0, 0, STEPS, Phase.PREPARING))
        clock.now += 50  # belongs to no phase
        progress.take(PackStep(0, 0, STEPS, Phase.EVALUATING))
        clock.now += measured
        progress.take(PackStep(0, 0, STEPS, Phase.TRAINING))
        clock.now += 40 * step
        progress.take(PackStep(0, 40, STEPS, Phase.TRAINING, 40_000))
        sampling = 2 * one.sampling * progress._scales()[Phase.TRAINING]
        left = (STEPS - 40) * step + 2 * measured
        assert left < progress.eta() <= left + sampling + 1
        assert f"{40_000 / (40 * step):,.0f} tokens/s" in progress.line()
        assert progress.pack_lines() == [f"pack 0 (2 runs) step 40 of {STEPS}"]


def test_several_processes_share_the_steps_of_a_run():
    one = Speed().of(pack(0, 1))
    spread = replace(RUN, training=replace(RUN.training, shards=4))
    found = Speed().of(PackTask(0, (PlannedRun("x", "x", spread),)))
    assert (4 * found.training, 4 * found.evaluation, found.sampling) == (one.training, one.evaluation, one.sampling)


def test_waiting_packs_are_placed_on_the_workers(clock):
    with quiet(8, workers=2) as progress:
        progress.start_runs([pack(number, 2) for number in range(4)])
        for number in (0, 1):
            progress.take(PackStep(number, 0, STEPS, Phase.TRAINING))
        clock.now += 50
        for number in (0, 1):
            progress.take(PackStep(number, STEPS // 2, STEPS, Phase.TRAINING))
        both = run_seconds(RUN)
        half = 50 * (1 + (both.evaluation + both.sampling) / (both.training / 2))  # of the running packs
        assert progress.eta() == pytest.approx(half + 100 * both.total / both.training, rel=0.01)


def test_an_evaluation_and_the_steps_behind_it_share_their_time(clock):
    with quiet(1) as progress:
        progress.start_runs([pack(0, 1)])
        progress.take(PackStep(0, 0, STEPS, Phase.EVALUATING))
        clock.now += 60
        progress.take(PackStep(0, STEPS // 2, STEPS, Phase.TRAINING))
        assert sum(progress._took.values()) == pytest.approx(60)
        assert progress._scales()[Phase.TRAINING] == pytest.approx(progress._scales()[Phase.EVALUATING])


def test_a_resumed_pack_has_only_its_rest_before_it(clock):
    with quiet(1) as progress:
        progress.start_runs([pack(0, 1)])
        progress.take(PackStep(0, 0, STEPS, Phase.PREPARING))
        progress.take(PackStep(0, STEPS // 2, STEPS, Phase.TRAINING))
        clock.now += 50
        progress.take(PackStep(0, 3 * STEPS // 4, STEPS, Phase.TRAINING))
        one = run_seconds(RUN)
        assert progress.eta() == pytest.approx(50 + 200 * (one.evaluation + one.sampling) / one.training, rel=0.01)


def test_counts_of_runs():
    with quiet(8, runs_done=2) as progress:
        progress.start_runs([pack(0, 4), pack(1, 2)])
        progress.take(PackStep(0, STEPS, STEPS, Phase.SAMPLING))
        for n in range(4):
            progress.take(RunDone(0, f"0{n}", RunStatus.DIVERGED))
        assert "6 of 8 runs" in progress.line() and "4 diverged" in progress.line()
        progress.take(TaskFailed(1, Failure(FailureKind.ERROR, "boom")))
        assert "2 failed" in progress.line() and not progress.pack_lines()
    assert duration(45) == "45 s" and duration(200) == "3 min" and duration(7800) == "2 h 10 min"


def test_a_stage_counts_what_its_tasks_report(clock):
    with quiet(6) as progress:
        progress.stage("scoring the reference", 0, "responses")
        assert progress.line() == "scoring the reference: opening model and data"
        progress.take(Scored(0, 0, 3000))
        progress.take(Scored(1, 0, 2800))
        clock.now += 60
        progress.take(Scored(0, 700, 3000))
        progress.take(Scored(1, 500, 2800))
        assert progress.line() == "scoring the reference: 1,200 of 5,800 responses, about 4 min left"
        progress.workers = 2
        progress.stage("scoring the reference", 0, "responses", seconds=100, later=1000)
        clock.now += 10
        progress.take(Scored(0, 10, 20))  # it will take 20 s where 50 s were assumed
        assert progress.line().endswith("10 of 20 responses, about 10 s left, then about 3 min for the runs")


def test_plain_lines_name_the_packs_and_a_file_keeps_them(clock, tmp_path: Path):
    text, file = io.StringIO(), tmp_path / "progress.json"
    with Progress(Console(file=text, width=300), 2, file=file) as progress:
        progress.start_runs([pack(0, 2)])
        progress.take(PackStep(0, 0, STEPS, Phase.TRAINING))
        clock.now += 30
        progress.take(PackStep(0, 7, STEPS, Phase.EVALUATING, 7000))
        assert f"pack 0 (2 runs) step 7 of {STEPS}, evaluating" in text.getvalue().splitlines()[-1]
        assert read_json(file) == {"line": progress.line(), "packs": progress.pack_lines()}
    assert not file.exists()


def test_status_of_a_running_sweep_says_what_its_driver_says(tmp_path: Path):
    write_json(tmp_path / "plan.json", {"name": "t", "runs": [{"run_key": "0" * 64, "name": "x", "config": {}}]})
    write_json(tmp_path / "progress.json", {"line": "1 of 2 runs", "packs": ["pack 0 (2 runs) step 7 of 200"]})
    assert "progress" not in read_status(tmp_path)  # left behind by a killed driver
    with sweep_lock(tmp_path):
        assert read_status(tmp_path)["progress"] == ["1 of 2 runs", "pack 0 (2 runs) step 7 of 200"]
        (tmp_path / "progress.json").unlink()
        assert read_status(tmp_path)["progress"] == []
