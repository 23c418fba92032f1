"""One task in a worker process: build models, or train a pack from its inputs to committed results. No tracking here.

A signal during training checkpoints the runs of the pack and commits them as `stopped`.
"""

from __future__ import annotations

import ctypes
import math
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from harness.inputs.reference_models import build_models
from harness.objectives.budget import budget, family
from harness.rlhf.lanes import RlTraining
from harness.signals import stop_handler
from harness.storage.runs import write_table
from harness.training.loop import Training, tokens_by_update
from harness.training.state import LaneState
from harness.training.timing import Spans, gemm_ceiling
from harness.types import Record, RunStatus, Split
from harness.worker.checkpointing import RunCheckpoint, Stopped, checkpointed_records, resume
from harness.worker.commit import PackRun, commit_run, commit_stopped, run_costs
from harness.worker.gradient_probe import gradient_probe, probe_table
from harness.worker.prepare import Worker, open_pack, pick_device
from harness.worker.protocol import (
    BuildTask,
    Event,
    FailureKind,
    ModelBuilt,
    PackProfile,
    PackStep,
    PackTask,
    Phase,
    RunDone,
    ScoreTask,
    Task,
    WorkerConfig,
    failure_kind,
)
from harness.worker.reward_models import Stopping, save_rewards
from harness.worker.samples import sample_runs
from harness.worker.saved_weights import BestWeights
from harness.worker.score_reference import score_share
from harness.worker.shard_group import ShardGroup, gathered, shard_group
from harness.worker.trainers import Trainer, build_trainer

_worker: Worker | None = None  # of this process


def run_task(task: Task, config: WorkerConfig) -> Iterator[Event]:
    """Run one task in this process. Raises what the task raises; `harness.sweep.engines.task_events` reports it."""
    worker = _worker_of_process(config)
    with worker.stop.deferring(on=False):  # only training checks for signals itself
        if isinstance(task, BuildTask):
            build_models(config.cache, task.builds, worker.device)
            for _ in task.builds:
                yield ModelBuilt(task.number)
        elif isinstance(task, ScoreTask):
            yield from score_share(task, worker)
        else:
            yield from _train_within_memory(task, worker)


def _worker_of_process(config: WorkerConfig) -> Worker:
    """The state of this process, kept from task to task of one command."""
    global _worker
    if _worker is None or _worker.config.session != config.session:
        keep_freed_memory()
        _worker = Worker(config, pick_device(config.device))
    _worker.config, _worker.stop = config, stop_handler(worker=True)
    torch.set_num_threads(config.threads)
    return _worker


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them: a step's buffers of some MB would fault in anew each time.

    Worth about 15 % of a CPU step; a no-op on other C libraries.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, its largest allowed value
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def _train_within_memory(task: PackTask, worker: Worker) -> Iterator[Event]:
    """Train a pack, unless one as large of its group ran out of memory here: the driver halves it without a try."""
    if len(task.runs) > worker.lane_limits.get(task.group, len(task.runs)):
        raise MemoryError(f"packs of {len(task.runs)} such runs do not fit here: memory ran out before")
    try:
        yield from train_pack(task, worker)
    except Exception as error:
        if failure_kind(error) is FailureKind.OUT_OF_MEMORY:
            worker.lane_limits[task.group] = max(len(task.runs) // 2, 1)
        raise


def train_pack(task: PackTask, worker: Worker) -> Iterator[Event]:
    """Train one pack and commit every run of it; yields progress, then one `RunDone` per run."""
    with shard_group(task, worker) as group:
        yield from _train_pack(task, worker, group)


def _train_pack(task: PackTask, worker: Worker, group: ShardGroup | None) -> Iterator[Event]:
    started, t0_ms = time.monotonic(), time.time_ns() // 1_000_000
    config, device = worker.config, worker.device
    steps = budget(task.runs[0].run.objective, task.runs[0].run.training).steps
    yield PackStep(task.number, 0, steps, Phase.PREPARING)
    spans = Spans(config.profile)
    with spans("preparation"):
        runs, pack = open_pack(task, worker, t0_ms)
    specs, inputs = [run.run for run in runs], [run.encoded.inputs for run in runs]
    kind = family(specs[0].objective)

    def build(states: Sequence[LaneState | None]) -> Trainer:
        if group is not None:
            return group.trainer(pack, runs[0].folder, states)
        return build_trainer(pack, specs, inputs, config.cache, device, states)

    best, stopping = BestWeights.of_pack(runs), Stopping.of_pack([run.key for run in runs], specs)
    # Checkpoints do not hold the best weights: packs with runs that keep them start anew.
    resumed: list[RunCheckpoint | None] = []
    if not (best.wanted or stopping.wanted):
        last = pack.lanes[0].training.steps if pack.one_order else math.inf
        resumed = resume([(run.folder, run.key) for run in runs], kind == "rl" or pack.one_order, last)
    states = [checkpoint.state if checkpoint else None for checkpoint in resumed] if any(resumed) else []
    probed = specs[0].evaluation.gradient_probe if kind not in ("rl", "reward") else 0
    trainer = build([] if probed else states)
    training = trainer.run
    probes = [gradient_probe(training, pack.lanes, probed, 0)]
    if probed and states:
        trainer = build(states)
        training = trainer.run
    started -= max((checkpoint.seconds for checkpoint in resumed if checkpoint), default=0.0)
    if isinstance(training, Training):
        training.spans = spans
    records = checkpointed_records(trainer, runs, resumed, started, config.checkpoint_seconds, worker.stop)
    with worker.stop.deferring(trainer.answers is None):  # best-of-n has no step boundary to check at
        try:
            yield from _take_records(task, runs, records, training, best, stopping, spans)
        except Stopped as stopped:
            commit_stopped(task, runs, stopped.steps, time.monotonic() - started, t0_ms)
            for run in runs:
                yield RunDone(task.number, run.key, RunStatus.STOPPED)
            return
        if group is not None:
            training = gathered(trainer, runs[0].key)
            group.close()
        yield PackStep(task.number, steps, steps, Phase.SAMPLING)
        probes.append(gradient_probe(training, pack.lanes, probed, runs[0].records[-1].step if runs[0].records else -1))
        with spans("sampling"):
            samples = [] if kind == "reward" else sample_runs(runs, training.model, trainer.answers)
        diverged = training.diverged_at[:, 0].tolist()
        if kind == "reward":
            kept = [stopping.keep(run.key, training.model, lane) for lane, run in enumerate(runs)]
            runs = [replace(run, kept_step=step) for run, step in zip(runs, kept, strict=True)]
            save_rewards(config.cache, specs, pack, training.model, [step >= 0 for step in diverged])
        seconds, flops = (time.monotonic() - started) / len(runs), 0.0
        for lane, run in enumerate(runs):
            status = RunStatus.DONE if diverged[lane] < 0 else RunStatus.DIVERGED
            costs = run_costs(run, training, seconds, task.number, lane)
            if probed:
                table = probe_table([probe[lane] for probe in probes], run.records, run.lane)
                write_table(run.folder / "probes.parquet", table)
            best.save(lane, run, training.model, pack.lanes[0].training.steps)
            with spans("I/O"):
                commit_run(run, samples[lane] if samples else None, status, diverged[lane], costs, t0_ms)
            flops += costs["flops"]
            yield RunDone(task.number, run.key, status)
        if spans.on:
            trained = flops if isinstance(training, Training) else 0.0
            yield PackProfile(task.number, dict(spans.seconds), trained, gemm_ceiling(device))


def _take_records(
    task: PackTask,
    runs: Sequence[PackRun],
    records: Iterator[Record | None],
    training: Training | RlTraining,
    best: BestWeights,
    stopping: Stopping,
    spans: Spans,
) -> Iterator[PackStep]:
    """Train the pack: add every record to its run and its metrics to the run's journal."""
    by_key = {run.key: run for run in runs}
    pack, tokens = training.pack, [0]
    steps = pack.lanes[0].training.steps
    if isinstance(training, Training):
        tokens += accumulate(tokens_by_update(pack, pack.lanes[0], training.model))
    for record in records:
        if record is None:
            step = training.step
            phase = Phase.EVALUATING if step in pack.checkpoints else Phase.TRAINING
            yield PackStep(task.number, step, steps, phase, len(runs) * tokens[min(step, len(tokens) - 1)])
            continue
        run = by_key[record.run_key]
        best.update(record, training.pack, training.model)
        if run.key in stopping.wanted and record.split == Split.HELDOUT:
            lane = [other.key for other in training.pack.lanes].index(run.key)  # lanes that ended leave the pack
            stopping.update(run.key, record.step, run.all_columns(record), training.model.weights(lane))
        run.records.append(record)
        with spans("records"):
            run.journal_metrics(record)
