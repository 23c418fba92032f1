"""The scheduler of a sweep: models are built, packs trained through an engine, finished runs sent to tracking."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.config.load import SweepSpec
from harness.identity import plain, run_key
from harness.storage import runs as store
from harness.storage.atomic import write_json
from harness.storage.checkpoints import newest_step
from harness.sweep.console import CommandOutput
from harness.sweep.engines import RUN_OUT, THIS_MACHINE, Cluster, Engine, load_engine
from harness.sweep.engines.process import LOST
from harness.sweep.packing import Packing, PackTask, plan_packs, settle
from harness.sweep.profiling import Profile
from harness.sweep.progress import Progress
from harness.sweep.signals import Interrupted, Stop, listening
from harness.types import InputError, RunSpec
from harness.worker.protocol import CHECKPOINT_SECONDS, DONE, Event, WorkerConfig, WorkerTask, run_task


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """How a sweep is carried out; none of it moves a number. `keep_every` is in seconds of a pack's training."""

    engine: str = "process"
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    track: bool = True  # whether finished runs are delivered to MLflow at once
    profile: bool = False  # whether to measure where the time goes
    cluster: Cluster = THIS_MACHINE


DEFAULT_OPTIONS = SweepOptions()


def run_packs(
    sweep: SweepSpec,
    out: Path,
    folder: Path,
    names: dict[str, str],
    left: Sequence[RunSpec],
    workers: int,
    voice: CommandOutput,
    means: SweepOptions = DEFAULT_OPTIONS,
) -> list[str]:
    """Build models, train packs, deliver runs as they finish; returns what failed, a line each.

    Raises Interrupted where a signal was heard: runs in training are kept and committed as `stopped`.
    """
    from harness.tracking.outbox import Outbox

    shop = WorkerConfig(
        str(out / "cache"), str(folder), sweep.runs[0].device, names, means.checkpoint_seconds, means.profile
    )
    profile = Profile(means.profile)
    with (
        listening() as stop,
        stop.softly(),
        Progress(voice.live, len(sweep.runs), len(sweep.runs) - len(left)) as shown,
    ):
        drain = _Scheduler(load_engine(means.engine, means.cluster), shop, workers, stop, shown)
        failures = _build(left, out / "cache", folder, drain)
        if not failures:
            deliver = Outbox(out, sweep.name).deliver if means.track else None
            failures = _train(left, folder, names, drain, deliver, profile)
        if stop.heard:
            raise Interrupted(stop.heard)
    for line in profile.finish(folder):
        voice.progress(line)
    return failures


@dataclass(frozen=True)
class _Scheduler:
    """An engine with what it needs: calling it with orders gives their messages, progress told on the way."""

    engine: Engine
    shop: WorkerConfig
    workers: int
    stop: Stop
    progress: Progress

    def __call__(self, orders: Sequence[WorkerTask]) -> Iterator[Event]:
        """Messages of all orders; bad input found by a worker stops the sweep."""
        for message in self.engine(run_task, orders, self.shop, self.workers, self.stop):
            if message.kind == "input":
                raise InputError(*message.text.splitlines())
            if message.kind == "full":
                raise OSError(errno.ENOSPC, message.text)
            self.progress.take(message)
            yield message


def _build(left: Sequence[RunSpec], cache: Path, folder: Path, drain: _Scheduler) -> list[str]:
    """Build the models that runs start from, stage by stage; what failed, a line each."""
    from harness.inputs.references import builds

    failures: list[str] = []
    for stage in builds(left):
        missing = [build for build in stage if not _built(cache, build.key)]
        if not missing or drain.stop.heard or failures:
            continue
        drain.progress.stage(
            {"pretrain": "pretraining worlds", "reference": "training references"}[stage[0].stage], len(missing)
        )
        shares = _shares(missing, drain.workers)
        for message in drain([WorkerTask("build", number, tuple(part)) for number, part in enumerate(shares)]):
            if message.kind == "failed":
                failures.append(f"{stage[0].stage} model: {_last_line(folder, message.text)}")
    return failures


def _train(
    left: Sequence[RunSpec],
    folder: Path,
    names: dict[str, str],
    drain: _Scheduler,
    deliver: Callable[[Path], int] | None,
    profile: Profile,
) -> list[str]:
    """Train every pack; RL learns from reward models, which are runs of this sweep, so it comes when they stand."""
    packing = settle(folder, drain.workers)
    first, then = ([run for run in left if (run.reward_model is None) is now] for now in (True, False))
    independent = _packs(first, folder, drain.workers, 0, packing)
    dependent = _packs(then, folder, drain.workers, len(independent), packing)
    packs = [*independent, *dependent]
    _write_packs(folder, packs)
    drain.progress.start_runs(packs)
    failures: list[str] = []
    for phase in (independent, dependent):
        while phase and not drain.stop.heard:
            again: list[PackTask] = []
            for message in drain([WorkerTask("pack", pack.number, pack) for pack in phase]):
                if message.kind == "done":
                    found = store.find_run(folder, message.key, names[message.key])
                    assert found is not None
                    if deliver is not None:
                        with profile.tracked():
                            deliver(found)
                elif message.kind == "profile":
                    profile.add(message.text)
                elif message.kind == "failed":
                    pack = packs[message.pack]
                    open_runs = tuple(run for run in pack.runs if not _finished(folder, run))
                    pack = PackTask(pack.number, open_runs)  # what it has committed stands
                    smaller = retried(pack, message.text, len(packs) + len(again), packs)
                    again += smaller
                    if not smaller:
                        failures += _mark_failed(folder, names, pack, message)
            packs += again
            phase = again
            if again:
                _write_packs(folder, packs)
                drain.progress.more(again)
    return failures


def _packs(runs: Sequence[RunSpec], folder: Path, workers: int, first: int, packing: Packing) -> list[PackTask]:
    """Packs of runs that go on from the same step: those that are kept in the middle do not wait for new ones."""
    groups: dict[int, list[RunSpec]] = {}
    folders = store.run_folders(folder)
    for run in runs:
        found = folders.get(run_key(run)[:8])
        groups.setdefault(newest_step(found) if found is not None else 0, []).append(run)
    packs: list[PackTask] = []
    for _, members in sorted(groups.items(), reverse=True):
        packs += plan_packs(members, workers, packing.size, first + len(packs), packing.room)
    return packs


def _write_packs(folder: Path, packs: Sequence[PackTask]) -> None:
    """`packs.json`: which runs train together, by number; those that were cut anew have a later number."""
    write_json(folder / "packs.json", [{"pack": p.number, "runs": [run_key(r) for r in p.runs]} for p in packs])


def _built(cache: Path, key: str) -> bool:
    """Whether a model stands and is whole; a damaged file is set aside, so the model is built again."""
    from harness.inputs.references import load_weights

    return load_weights(cache, key) is not None


def _shares(items: Sequence[Any], parts: int) -> list[list[Any]]:
    """`items` in at most `parts` even, contiguous shares."""
    parts = min(parts, len(items))
    edges = [round(i * len(items) / parts) for i in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(edges)]


def _finished(folder: Path, run: RunSpec) -> bool:
    result = store.find_result(folder, run_key(run))
    return result is not None and result["status"] in DONE


def _mark_failed(folder: Path, names: dict[str, str], pack: PackTask, message: Event) -> list[str]:
    """Commit `failed` for the unfinished runs of a pack that broke, so that nothing is silently missing."""
    lines: list[str] = []
    reason = _last_line(folder, message.text)
    for run in pack.runs:
        if _finished(folder, run):
            continue
        key = run_key(run)
        place, attempt = store.open_run(folder, key, names[key])
        store.commit(
            place,
            {
                "run_key": key,
                "status": "failed",
                "steps": run.training.steps,
                "results": {},
                "costs": {"attempt": attempt, "pack": pack.number},
                "config": plain(run),
                "name": names[key],
                "error": message.text,
                "reason": reason_of(message.text),
                "t0_ms": 0,
            },
        )
        lines.append(f"{key[:8]} {names[key]}: {reason}")
    return lines


def _last_line(folder: Path, trace: str) -> str:
    """What went wrong in one line; the whole traceback is kept in the sweep's `errors.log`."""
    with (folder / "errors.log").open("a", encoding="utf-8") as log:
        log.write(f"{trace.rstrip()}\n\n")
    return f"{trace.strip().splitlines()[-1]} (traceback in {folder / 'errors.log'})"


# Last lines of tracebacks that say that memory gave out.
MEMORY = (
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "MemoryError",
    "numpy._core._exceptions._ArrayMemory",
)


def reason_of(text: str) -> str:
    """`oom`, `lost` (its process ended) or `error`: the kind of a failure, from the message of the pack."""
    last = text.strip().splitlines()[-1] if text.strip() else ""
    if last.startswith((*MEMORY, RUN_OUT)) or "CUDA out of memory" in last:
        return "oom"
    return "lost" if last.startswith(LOST) else "error"


def retried(pack: PackTask, text: str, first: int, earlier: Sequence[PackTask]) -> list[PackTask]:
    """The packs to train in place of one that broke, numbered from `first`; none where trying again cannot help.

    Halves, down to single runs, and one more try for a single run whose process was lost. A run's numbers do not depend
    on its pack, so they are as if it had been cut like this from the start.
    """
    reason, size = reason_of(text), len(pack.runs)
    if reason == "error" or not size:
        return []
    if size > 1:
        return [PackTask(first, pack.runs[: size // 2]), PackTask(first + 1, pack.runs[size // 2 :])]
    alone_before = sum(other.runs == pack.runs for other in earlier)
    return [PackTask(first, pack.runs)] if reason == "lost" and alone_before < 2 else []
