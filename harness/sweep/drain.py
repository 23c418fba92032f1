"""What trains the runs of a sweep: models are built, packs drained through an engine, finished runs delivered.

Training never waits for tracking: finished runs are delivered between messages.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.names import plain, run_key
from harness.spec import SweepSpec
from harness.sweep.engines import THIS_MACHINE, Cluster, Engine, load_engine
from harness.sweep.messages import DONE, Message
from harness.sweep.packing import Packing, settle
from harness.sweep.packs import PackTask, plan_packs
from harness.sweep.profiling import Profile
from harness.sweep.progress import Progress
from harness.sweep.retries import reason_of, retried
from harness.sweep.stopping import Interrupted, Stop, listening
from harness.sweep.tasks import KEEP_SECONDS, Order, Shop, perform
from harness.sweep.voice import Voice
from harness.tracking import store
from harness.tracking.checkpoints import newest_step
from harness.tracking.files import write_json
from harness.types import InputError, RunSpec


@dataclass(frozen=True, slots=True)
class Means:
    """How a sweep is carried out; none of it moves a number. `keep_every` is in seconds of a pack's training."""

    engine: str = "process"
    keep_every: float = KEEP_SECONDS
    track: bool = True  # whether finished runs are delivered to MLflow at once
    profile: bool = False  # whether to measure where the time goes
    cluster: Cluster = THIS_MACHINE


DEFAULT_MEANS = Means()


def execute(
    sweep: SweepSpec,
    out: Path,
    folder: Path,
    names: dict[str, str],
    left: Sequence[RunSpec],
    workers: int,
    voice: Voice,
    means: Means = DEFAULT_MEANS,
) -> list[str]:
    """Build models, train packs, deliver runs as they finish; returns what failed, a line each.

    Raises Interrupted where a signal was heard: runs in training are kept and committed as `stopped`.
    """
    from harness.tracking.mlflow_outbox import Outbox

    shop = Shop(str(out / "cache"), str(folder), sweep.runs[0].device, names, means.keep_every, means.profile)
    profile = Profile(means.profile)
    with (
        listening() as stop,
        stop.softly(),
        Progress(voice.live, len(sweep.runs), len(sweep.runs) - len(left)) as shown,
    ):
        drain = _Drain(load_engine(means.engine, means.cluster), shop, workers, stop, shown)
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
class _Drain:
    """An engine with what it needs: calling it with orders gives their messages, progress told on the way."""

    engine: Engine
    shop: Shop
    workers: int
    stop: Stop
    progress: Progress

    def __call__(self, orders: Sequence[Order]) -> Iterator[Message]:
        """Messages of all orders; bad input found by a worker stops the sweep."""
        for message in self.engine(perform, orders, self.shop, self.workers, self.stop):
            if message.kind == "input":
                raise InputError(*message.text.splitlines())
            if message.kind == "full":
                raise OSError(errno.ENOSPC, message.text)
            self.progress.take(message)
            yield message


def _build(left: Sequence[RunSpec], cache: Path, folder: Path, drain: _Drain) -> list[str]:
    """Build the models that runs start from, stage by stage; what failed, a line each."""
    from harness.sweep.setting.stages import builds

    failures: list[str] = []
    for stage in builds(left):
        missing = [build for build in stage if not _built(cache, build.key)]
        if not missing or drain.stop.heard or failures:
            continue
        drain.progress.stage(
            {"pretrain": "pretraining worlds", "reference": "training references"}[stage[0].stage], len(missing)
        )
        shares = _shares(missing, drain.workers)
        for message in drain([Order("build", number, tuple(part)) for number, part in enumerate(shares)]):
            if message.kind == "failed":
                failures.append(f"{stage[0].stage} model: {_last_line(folder, message.text)}")
    return failures


def _train(
    left: Sequence[RunSpec],
    folder: Path,
    names: dict[str, str],
    drain: _Drain,
    deliver: Callable[[Path], int] | None,
    profile: Profile,
) -> list[str]:
    """Train every pack; RL learns from reward models, which are runs of this sweep, so it comes when they stand."""
    packing = settle(folder, left, drain.workers)
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
            for message in drain([Order("pack", pack.number, pack) for pack in phase]):
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
    from harness.sweep.setting.stages import load_weights

    return load_weights(cache, key) is not None


def _shares(items: Sequence[Any], parts: int) -> list[list[Any]]:
    """`items` in at most `parts` even, contiguous shares."""
    parts = min(parts, len(items))
    edges = [round(i * len(items) / parts) for i in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(edges)]


def _finished(folder: Path, run: RunSpec) -> bool:
    result = store.find_result(folder, run_key(run))
    return result is not None and result["status"] in DONE


def _mark_failed(folder: Path, names: dict[str, str], pack: PackTask, message: Message) -> list[str]:
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
