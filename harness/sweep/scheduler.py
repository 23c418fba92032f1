"""The scheduler of a sweep: builds models, trains packs through an engine, delivers finished runs to tracking."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.corruptions.registry import needs
from harness.signals import Interrupted, Stop, catching_signals
from harness.storage.atomic import write_json
from harness.storage.checkpoints import newest_step
from harness.storage.runs import commit, final_keys, find_run, open_run, run_folders, run_result
from harness.sweep.console import CommandOutput
from harness.sweep.engines import THIS_MACHINE, Cluster, Engine, load_engine
from harness.sweep.estimates import measured_under
from harness.sweep.packing import by_source, counts_of, pack_key, plan_packs, scored_first, settle
from harness.sweep.profiling import Profile
from harness.sweep.progress import PROGRESS, Progress, Speed
from harness.sweep.resources import gpu_groups, most_shards
from harness.tracking.outbox import Outbox
from harness.types import InputError, PlannedRun, RunSpec, RunStatus
from harness.worker.protocol import (
    CHECKPOINT_SECONDS,
    BuildTask,
    Event,
    Failure,
    FailureKind,
    PackProfile,
    PackTask,
    RunDone,
    ScoreTask,
    Task,
    TaskFailed,
    WorkerConfig,
)

STAGES = {"pretrain": "pretraining worlds", "reference": "training references"}
SCORING = "scoring the reference"


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """How a sweep is run; none of it changes a number."""

    engine: str = "process"
    checkpoint_seconds: float = CHECKPOINT_SECONDS  # of a pack's training between two checkpoints
    track: bool = True  # whether finished runs are delivered to MLflow at once
    profile: bool = False  # whether to measure where the time goes
    threads: int = 0  # of a pack; 0: as the plan says
    cluster: Cluster = THIS_MACHINE


DEFAULT_OPTIONS = SweepOptions()


def run_packs(
    folder: Path,
    total: int,
    runs: Sequence[PlannedRun],
    workers: int,
    output: CommandOutput,
    options: SweepOptions = DEFAULT_OPTIONS,
) -> list[str]:
    """Train `runs`, at least one, of a sweep of `total`, and deliver each as it finishes; what failed, a line each.

    Raises Interrupted after a signal: runs in training are then checkpointed and committed as `stopped`.
    """
    shards = most_shards(planned.run for planned in runs)
    cache, threads = folder.parent / "cache", options.threads or settle(folder, workers).threads
    config = WorkerConfig(
        cache,
        folder,
        runs[0].run.device,
        options.checkpoint_seconds,
        options.profile,
        threads=threads,
        gpus=gpu_groups(runs[0].run.device, shards),
        shards=shards,
    )
    counts = counts_of((planned.run for planned in runs), cache)
    speed = Speed(counts, measured_under(folder.parent), threads)
    with (
        catching_signals() as stop,
        stop.deferring(),
        Progress(output.live, total, total - len(runs), speed, workers, folder / PROGRESS) as progress,
    ):
        scheduler = _Scheduler(
            load_engine(options.engine, options.cluster),
            config,
            workers,
            stop,
            progress,
            Profile(options.profile),
            Outbox(folder) if options.track else None,
        )
        scheduler.build_models(runs)
        if not scheduler.failures:
            scheduler.score_reference(runs)
            scheduler.train(runs)
        if stop.received:
            raise Interrupted(stop.received)
    for line in scheduler.profile.finish(folder):
        output.progress(line)
    return scheduler.failures


@dataclass(eq=False)
class _Scheduler:
    """Hands tasks to an engine and acts on their events; `packs` are all of the sweep, by number."""

    engine: Engine
    config: WorkerConfig
    workers: int
    stop: Stop
    progress: Progress
    profile: Profile
    outbox: Outbox | None
    packs: list[PackTask] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # a line each

    def run_tasks(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """The events of tasks, shown as progress. Raises InputError and OSError for what must stop the sweep."""
        from harness.worker.train_pack import run_task  # imports torch

        for event in self.engine(run_task, tasks, self.config, self.workers, self.stop):
            if isinstance(event, TaskFailed) and event.failure.kind is FailureKind.INPUT:
                raise InputError(*event.failure.message.splitlines())
            if isinstance(event, TaskFailed) and event.failure.kind is FailureKind.DISK_FULL:
                raise OSError(errno.ENOSPC, event.failure.message)
            self.progress.take(event)
            yield event

    def build_models(self, runs: Sequence[PlannedRun]) -> None:
        """Build the models that runs start from, stage by stage, until one fails."""
        from harness.inputs.reference_models import builds, load_weights  # imports torch

        for stage in builds([planned.run for planned in runs]):
            # A damaged file is set aside by `load_weights`, so the model is built again.
            missing = [build for build in stage if load_weights(self.config.cache, build.key) is None]
            if not missing or self.stop.received or self.failures:
                continue
            self.progress.stage(STAGES[stage[0].stage], len(missing), "models")
            shares = _shares(missing, self.workers)
            for event in self.run_tasks([BuildTask(number, tuple(share)) for number, share in enumerate(shares)]):
                if isinstance(event, TaskFailed):
                    self.failures.append(f"{stage[0].stage} model: {_logged(self.config.folder, event.failure)}")

    def score_reference(self, runs: Sequence[PlannedRun]) -> None:
        """Score what the runs need of references that are large models, a share per worker.

        Where that fails, packs score what is missing, and say what is wrong.
        """
        sources = by_source(planned.run for planned in runs if scored_first(planned.run))
        for all_pairs in (True, False):
            tasks: list[ScoreTask] = []
            for members in sources.values():
                own = [run for run in members if "delta_ref" in needs(run.corruption)] if all_pairs else members
                own = [*{pack_key(run): run for run in reversed(own)}.values()]  # of each order and text one
                shares = self.workers if own else 0
                tasks += [ScoreTask(len(tasks) + n, tuple(own), n, shares, all_pairs) for n in range(shares)]
            if tasks and not self.stop.received:
                speed = self.progress.speed
                later = speed.runs(planned.run for planned in runs)
                self.progress.stage(SCORING, 0, "responses", speed.scoring(sources), later)
                for event in self.run_tasks(tasks):
                    if isinstance(event, TaskFailed):
                        _logged(self.config.folder, event.failure)

    def train(self, runs: Sequence[PlannedRun]) -> None:
        """Train every pack; RL runs learn from reward models, which are runs of this sweep, so they come second."""
        packing = settle(self.config.folder, self.workers)
        phases = []
        for with_reward_model in (False, True):
            group = [planned for planned in runs if (planned.run.reward_model is not None) is with_reward_model]
            room = partial(packing.room, self.progress.speed.counts)
            phases.append(_packs(group, self.config.folder, self.workers, len(self.packs), packing.size, room))
            self.packs += phases[-1]
        _write_packs(self.config.folder, self.packs)
        self.progress.start_runs(self.packs)
        for packs in phases:
            while packs and not self.stop.received:
                packs = self._train_once(packs)

    def _train_once(self, packs: Sequence[PackTask]) -> list[PackTask]:
        """Train packs; returns the ones to train in place of those that failed."""
        smaller: list[PackTask] = []
        for event in self.run_tasks(packs):
            match event:
                case RunDone():
                    self._deliver(event.key)
                case PackProfile():
                    self.profile.add(event)
                case TaskFailed():
                    pack = self.packs[event.task]
                    final = final_keys(self.config.folder, [planned.key for planned in pack.runs])
                    pack = replace(pack, runs=tuple(planned for planned in pack.runs if planned.key not in final))
                    retry = retried(pack, event.failure.kind, len(self.packs) + len(smaller), self.packs)
                    smaller += retry
                    if not retry:
                        self._mark_failed(pack, event.failure)
        if smaller:
            self.packs += smaller
            _write_packs(self.config.folder, self.packs)
            self.progress.add_packs(smaller)
        return smaller

    def _deliver(self, key: str) -> None:
        if self.outbox is None:
            return
        run_folder = find_run(self.config.folder, key)
        assert run_folder is not None  # it was committed there
        with self.profile.tracked():
            self.outbox.deliver(run_folder)

    def _mark_failed(self, pack: PackTask, failure: Failure) -> None:
        """Commit `failed` for the unfinished runs of a pack, so that nothing is missing without a word."""
        reason = _logged(self.config.folder, failure)
        for planned in pack.runs:
            folder, attempt = open_run(self.config.folder, planned.key, planned.name)
            costs = {"attempt": attempt, "pack": pack.number}
            result = run_result(planned, folder, RunStatus.FAILED, planned.run.training.steps, costs, t0_ms=0)
            commit(folder, result | {"error": failure.trace or failure.message, "reason": failure.kind})
            self.failures.append(f"{planned.key[:8]} {planned.name}: {reason}")


def _packs(
    runs: Sequence[PlannedRun],
    folder: Path,
    workers: int,
    first: int,
    size: int,
    room: Callable[[RunSpec], int],
) -> list[PackTask]:
    """Packs of runs that continue from the same step: those with a checkpoint do not wait for new ones."""
    by_step: dict[int, list[PlannedRun]] = {}
    folders = run_folders(folder)
    for planned in runs:
        run_folder = folders.get(planned.key[:8])
        by_step.setdefault(newest_step(run_folder) if run_folder is not None else 0, []).append(planned)
    packs: list[PackTask] = []
    for _, members in sorted(by_step.items(), reverse=True):
        packs += plan_packs(members, workers, size, first + len(packs), room)
    return packs


def _write_packs(folder: Path, packs: Sequence[PackTask]) -> None:
    """`packs.json`: which runs train together, by number; packs in place of failed ones have later numbers."""
    write_json(folder / "packs.json", [{"pack": p.number, "runs": [run.key for run in p.runs]} for p in packs])


def _shares(items: Sequence[Any], parts: int) -> list[list[Any]]:
    """`items` in at most `parts` even, contiguous shares."""
    parts = min(parts, len(items))
    edges = [round(i * len(items) / parts) for i in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(edges)]


def _logged(folder: Path, failure: Failure) -> str:
    """The message of a failure; its traceback goes to the sweep's `errors.log`."""
    with (folder / "errors.log").open("a", encoding="utf-8") as log:
        log.write(f"{(failure.trace or failure.message).rstrip()}\n\n")
    return f"{failure.message} (traceback in {folder / 'errors.log'})"


def retried(pack: PackTask, kind: FailureKind, first: int, packs: Sequence[PackTask]) -> list[PackTask]:
    """The packs to train in place of one that failed, numbered from `first`; none where another try cannot help.

    Halves, down to single runs, and one more try for a single run whose process was lost. A run's numbers do not depend
    on its pack. `packs` are all packs until now.
    """
    size = len(pack.runs)
    if kind not in (FailureKind.OUT_OF_MEMORY, FailureKind.LOST_PROCESS) or not size:
        return []
    if size > 1:
        halves = (pack.runs[: size // 2], pack.runs[size // 2 :])
        return [replace(pack, number=first + i, runs=half) for i, half in enumerate(halves)]
    tries = sum(other.runs == pack.runs for other in packs)
    return [replace(pack, number=first)] if kind is FailureKind.LOST_PROCESS and tries < 2 else []
