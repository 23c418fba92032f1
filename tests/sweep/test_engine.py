"""Packs and worker processes: every task is accounted for, whatever happens to the process that holds it."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from harness.objectives.registry import resolve
from harness.run_names import planned_runs
from harness.signals import Stop
from harness.sweep import resources
from harness.sweep.engines import process, task_events
from harness.sweep.packing import pack_key, plan_packs
from harness.types import (
    CorruptionSpec,
    EvaluationSpec,
    InputError,
    PlannedRun,
    RunSpec,
    RunStatus,
    TrainingSpec,
    WorldSpec,
)
from harness.worker.protocol import (
    Event,
    FailureKind,
    PackStep,
    PackTask,
    RunDone,
    TaskFailed,
    WorkerConfig,
    failure_of,
)

RUN = RunSpec(
    resolve("dpo", {"beta": 2.0}), CorruptionSpec(), TrainingSpec(), EvaluationSpec(), seed=0, world=WorldSpec()
)


@dataclass(frozen=True)
class Task:
    number: int
    what: str


def play(task: Task, _: object) -> Iterator[Event]:
    """A task that does what its name says."""
    yield PackStep(task.number, 1, 2)
    if task.what == "raise":
        raise ValueError("broken on purpose")
    if task.what == "input":
        raise InputError("row 3: no good")
    if task.what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    yield RunDone(task.number, str(task.number), RunStatus.DONE)


def see(task: Task, _: object) -> Iterator[Event]:
    """A task that says which GPU its process sees, and lets others begin."""
    time.sleep(0.5 if task.what == "first" else 0)
    yield RunDone(task.number, os.environ.get("CUDA_VISIBLE_DEVICES", ""), RunStatus.DONE)


def test_each_worker_process_sees_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "stand-in")
    config = WorkerConfig(tmp_path, tmp_path, "cpu", gpus=("3", "GPU-5f"))
    tasks = [Task(0, "first"), Task(1, "first"), Task(2, "later"), Task(3, "later")]
    seen = {event.task: event.key for event in process.run_tasks(see, tasks, config, 2, Stop())}
    assert (seen[0], seen[1]) == ("3", "GPU-5f") and set(seen.values()) == {"3", "GPU-5f"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "stand-in"
    [alone] = process.run_tasks(see, tasks[:1], replace(config, gpus=()), 2, Stop())
    assert alone.key == "stand-in"


def test_a_worker_per_visible_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(resources, "_has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert resources.visible_gpus("auto") == ("4", "7") == resources.visible_gpus("cuda")
    assert resources.visible_gpus("cpu") == resources.visible_gpus("cuda:1") == ()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert resources.visible_gpus("auto") == ("0", "1")
    sweep = SimpleNamespace(runs=[replace(RUN, device="auto")])
    assert resources.worker_count(sweep, None) == 2 and resources.worker_count(sweep, 1) == 1


def test_every_task_ends_in_one_event_whatever_happens():
    tasks = [Task(i, what) for i, what in enumerate(["ok", "die", "raise", "ok", "input", "ok"])]
    ends = {e.task: e for e in process.run_tasks(play, tasks, None, 2, Stop()) if not isinstance(e, PackStep)}
    assert sorted(ends) == list(range(6)) and all(isinstance(ends[n], RunDone) for n in (0, 3, 5))
    lost, raised, refused = (ends[n].failure for n in (1, 2, 4))
    assert lost.kind is FailureKind.LOST_PROCESS and "exit code -9" in lost.message
    assert (raised.kind, raised.error, raised.message) == (
        FailureKind.ERROR,
        "ValueError",
        "ValueError: broken on purpose",
    )
    assert "in play" in raised.trace
    assert (refused.kind, refused.message) == (FailureKind.INPUT, "row 3: no good")


def failures():
    import torch

    return [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), FailureKind.OUT_OF_MEMORY),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), FailureKind.OUT_OF_MEMORY),
        (InputError("row 3"), FailureKind.INPUT),
        (OSError(errno.ENOSPC, "no space left"), FailureKind.DISK_FULL),
        (OSError(errno.EACCES, "no permission"), FailureKind.ERROR),
        (RuntimeError("memory"), FailureKind.ERROR),
    ]


@pytest.mark.parametrize(("error", "kind"), failures(), ids=repr)
def test_failures_are_classified_by_the_exception(error, kind):
    failure = failure_of(error)
    assert failure.kind is kind and failure.error == type(error).__name__


def test_the_allocator_error_of_torch_is_known_by_its_text():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert failure_of(caught.value).kind is FailureKind.OUT_OF_MEMORY


def test_leaving_early_stops_the_workers():
    engine = process.run_tasks(play, [Task(i, "ok") for i in range(8)], None, 2, Stop())
    next(engine)
    engine.close()
    import multiprocessing

    assert not [p for p in multiprocessing.active_children() if p.is_alive()]


def grid(count: int) -> tuple[PlannedRun, ...]:
    return planned_runs(replace(RUN, seed=i % 4, objective=resolve("dpo", {"beta": 1.0 + i})) for i in range(count))


@pytest.mark.parametrize(("count", "workers"), [(1, 2), (5, 2), (9, 2), (64, 2), (100, 3)])
def test_packs_hold_every_run_once_and_keep_all_workers_busy(count, workers):
    runs = grid(count)
    packs = plan_packs(runs, workers, size=8)
    assert sorted(run.key for pack in packs for run in pack.runs) == sorted(run.key for run in runs)
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
    heads = [resolve("reward_model", {"head": head}) for head in ("lm", "scalar")]
    learners = [replace(RUN, objective=resolve("rloo", {}), reward_model=head) for head in heads]
    assert pack_key(learners[0]) != pack_key(learners[1])
    assert rl("reward_model") == rl("reward_model", per_nat=0.5) != rl("reward_model", head="scalar")


def test_a_size_that_ran_out_of_memory_is_not_tried_again(tmp_path, monkeypatch):
    import torch

    from harness.worker import train_pack

    runs = planned_runs(replace(RUN, seed=seed) for seed in range(8))
    tried: list[int] = []

    def train(task: PackTask, _: object) -> Iterator[Event]:
        tried.append(len(task.runs))
        if len(task.runs) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield RunDone(task.number, runs[0].key, RunStatus.DONE)

    monkeypatch.setattr(train_pack, "train_pack", train)
    config = WorkerConfig(tmp_path, tmp_path, "cpu")
    tasks = [PackTask(0, runs, "a"), PackTask(1, runs, "a"), PackTask(2, runs[:4], "a"), PackTask(3, runs, "b")]
    ends = [event for task in tasks for event in task_events(train_pack.run_task, task, config)]
    assert tried == [8, 4, 8]  # the second eight of the first group cost nothing
    assert [isinstance(event, TaskFailed) for event in ends] == [True, True, False, True]
    assert {event.failure.kind for event in ends if isinstance(event, TaskFailed)} == {FailureKind.OUT_OF_MEMORY}
    again = list(task_events(train_pack.run_task, tasks[1], WorkerConfig(tmp_path, tmp_path, "cpu")))
    assert tried == [8, 4, 8, 8] and len(again) == 1  # another command starts without what this one has learnt
