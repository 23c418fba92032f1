"""Packs and worker processes: every task is accounted for, whatever happens to the process that holds it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from harness.identity import run_key
from harness.objectives.registry import resolve
from harness.sweep.engines import process
from harness.sweep.packing import PackTask, keys, pack_key, plan_packs
from harness.sweep.progress import Progress
from harness.sweep.signals import Stop
from harness.text import duration
from harness.types import CorruptionSpec, EvaluationSpec, InputError, RunSpec, TrainingSpec, WorldSpec
from harness.worker.protocol import Event

RUN = RunSpec(
    resolve("dpo", {"beta": 2.0}), CorruptionSpec(), TrainingSpec(), EvaluationSpec(), seed=0, world=WorldSpec()
)


@dataclass(frozen=True)
class Task:
    number: int
    what: str


def play(task: Task, _: object) -> Iterator[Event]:
    """A task that does as it is told."""
    yield Event("step", task.number, 1, 2)
    if task.what == "raise":
        raise ValueError("broken on purpose")
    if task.what == "input":
        raise InputError("row 3: no good")
    if task.what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    yield Event("done", task.number, key=str(task.number), status="done")


def test_every_task_ends_in_one_message_whatever_happens():
    tasks = [Task(i, what) for i, what in enumerate(["ok", "die", "raise", "ok", "input", "ok"])]
    ends = {m.pack: m for m in process.run_tasks(play, tasks, None, 2, Stop()) if m.kind != "step"}
    assert {number: m.kind for number, m in ends.items()} == {
        0: "done", 1: "failed", 2: "failed", 3: "done", 4: "input", 5: "done",
    }  # fmt: skip
    assert "exit code -9" in ends[1].text and "broken on purpose" in ends[2].text and "row 3" in ends[4].text


def test_leaving_early_stops_the_workers():
    engine = process.run_tasks(play, [Task(i, "ok") for i in range(8)], None, 2, Stop())
    next(engine)
    engine.close()
    import multiprocessing

    assert not [p for p in multiprocessing.active_children() if p.is_alive()]


def grid(count: int) -> list[RunSpec]:
    return [replace(RUN, seed=i % 4, objective=resolve("dpo", {"beta": 1.0 + i})) for i in range(count)]


@pytest.mark.parametrize(("count", "workers"), [(1, 2), (5, 2), (9, 2), (64, 2), (100, 3)])
def test_packs_hold_every_run_once_and_keep_all_workers_busy(count, workers):
    runs = grid(count)
    packs = plan_packs(runs, workers, size=8)
    assert sorted(key for pack in packs for key in keys(pack)) == sorted(map(run_key, runs))
    assert all(1 <= len(pack.runs) <= 8 for pack in packs)
    assert len(packs) >= min(workers, count)
    assert max(len(p.runs) for p in packs) - min(len(p.runs) for p in packs) <= 1


def test_pack_keys_part_what_cannot_share_a_step():
    assert pack_key(RUN) == pack_key(replace(RUN, seed=3, training=replace(RUN.training, learning_rate=1e-3)))
    for other in (
        replace(RUN, training=replace(RUN.training, batch_size=32)),
        replace(RUN, training=replace(RUN.training, steps=100)),
        replace(RUN, world=replace(RUN.world, hidden_size=32)),
        replace(RUN, evaluation=replace(RUN.evaluation, samples=0)),
    ):
        assert pack_key(other) != pack_key(RUN)


def test_rl_runs_pack_with_their_like_alone():
    def rl(name, **given):
        return pack_key(replace(RUN, objective=resolve(name, given)))

    assert rl("rloo", beta=0.1) == rl("rloo", beta=1.0, reward_scale=True, clip=0.1)
    others = [
        rl("rloo", samples=2), rl("rloo", epochs=2), rl("rloo", minibatches=2), rl("rloo", reward="gold"),
        rl("rloo", iterations=7), rl("rloo", prompts=7), rl("grpo"), rl("best_of_n"), rl("best_of_n", n=8),
        rl("constrained_rlhf"), rl("constrained_rlhf", pairs=8), rl("reward_model"), pack_key(RUN),
    ]  # fmt: skip
    assert len({rl("rloo"), *others}) == 1 + len(others)


def test_progress_counts_and_estimates():
    packs = (PackTask(0, tuple(grid(4))), PackTask(1, tuple(grid(2))))
    with Progress(Console(quiet=True), 8, 2) as progress:
        progress.start_runs(packs)
        assert progress.eta() is None
        progress.take(Event("step", 0, 100, 200))
        progress._started -= 10  # ten seconds have passed: 0.45 of 4 of 6 runs' work is done
        assert progress.eta() == pytest.approx(10 * (1 - 0.3) / 0.3, rel=0.01)
        for run in packs[0].runs:
            progress.take(Event("done", 0, key=run_key(run), status="diverged"))
        assert "6 of 8 runs" in progress.line() and "4 diverged" in progress.line()
        progress.take(Event("failed", 1, text="boom"))
        assert "2 failed" in progress.line()
    assert duration(45) == "45 s" and duration(200) == "3 min" and duration(7800) == "2 h 10 min"


def test_a_size_that_ran_out_of_memory_is_not_tried_again(tmp_path, monkeypatch):
    import torch

    from harness.sweep.scheduler import reason_of
    from harness.worker import train_pack as training
    from harness.worker.protocol import WorkerConfig, WorkerTask, run_task

    runs = tuple(replace(RUN, seed=seed) for seed in range(8))
    other = tuple(replace(run, training=TrainingSpec(steps=7)) for run in runs)
    tried: list[int] = []

    def work(task: PackTask, _: object) -> Iterator[Event]:
        tried.append(len(task.runs))
        if len(task.runs) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield Event("done", task.number)

    monkeypatch.setattr(training, "work", work)
    shop = WorkerConfig(str(tmp_path), str(tmp_path), "cpu", {})
    orders = [WorkerTask("pack", n, PackTask(n, of)) for n, of in enumerate([runs, runs, runs[:4], other])]
    ends = [m for order in orders for m in process.task_events(run_task, order, shop)]
    assert tried == [8, 4, 8]  # the second eight of the first kind cost nothing
    assert [m.kind for m in ends] == ["failed", "failed", "done", "failed"]
    assert [reason_of(m.text) for m in ends if m.text] == ["oom"] * 3
