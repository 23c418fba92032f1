"""The driver: claim the sweep, build what it needs, drain its packs, project to tracking, write tables and report.

Running the same command again does only what is missing. Training never waits for tracking: finished runs are
delivered between messages, and a dead tracking server costs a line at the end.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from harness.data.text import data_notes
from harness.labels import readable_names
from harness.names import plain, run_key
from harness.spec import BYTES_PER_RUN, SweepSpec, reward_run
from harness.sweep.before import look_before
from harness.sweep.engines import CLUSTERS, THIS_MACHINE, Cluster, Engine, load_engine, slots
from harness.sweep.evaluate import check_asked, evaluate_folder
from harness.sweep.messages import DONE, Message
from harness.sweep.packing import Packing, as_plan, settle
from harness.sweep.packs import PackTask, plan_packs
from harness.sweep.plan import finished
from harness.sweep.profiling import Profile
from harness.sweep.progress import Progress
from harness.sweep.retries import reason_of, retried
from harness.sweep.stopping import Interrupted, Stop, listening
from harness.sweep.tasks import KEEP_SECONDS, Order, Shop, perform
from harness.tracking import store
from harness.tracking.checkpoints import newest_step
from harness.types import InputError, NoRoom, PathModelSpec, RunSpec


@dataclass(frozen=True, slots=True)
class Means:
    """How a sweep is carried out; none of it moves a number. `keep_every` is in seconds of a pack's training."""

    engine: str = "process"
    keep_every: float = KEEP_SECONDS
    track: bool = True  # whether finished runs are delivered to MLflow at once
    profile: bool = False  # whether to measure where the time goes
    cluster: Cluster = THIS_MACHINE


DEFAULT_MEANS = Means()


def run_sweep(
    sweep: SweepSpec,
    out: Path,
    workers: int | None = None,
    console: Console | None = None,
    means: Means = DEFAULT_MEANS,
) -> int:
    """Run what is missing of `sweep` under `out`; returns the exit code (0, or 1 where a run failed).

    Raises InputError for data that cannot be used, Interrupted where the user stops it (nothing finished is lost, and
    tables say what stands: the same command goes on).
    """
    console = console or Console(stderr=False)
    check_asked(sweep)
    folder = out / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    with room_in(folder), store.claim_sweep(folder):
        names = dict(zip(map(run_key, sweep.runs), readable_names(sweep.runs), strict=True))
        if workers is None and means.engine in CLUSTERS:
            workers = slots(means.engine, means.cluster)
        count = worker_count(sweep, workers)
        write_plan(folder, sweep, names, settle(folder, sweep.runs, count, _gpu_memory(sweep.runs[0].device)))
        look_before(sweep.runs, folder, lambda line: console.print(line, highlight=False, soft_wrap=True))
        left = _left(sweep, out, folder)
        enough_room(folder, len(left))
        console.print(
            f"{sweep.name}: {len(sweep.runs)} runs, {len(sweep.runs) - len(left)} already done, {count} workers",
            highlight=False,
        )
        try:
            failures = execute(sweep, out, folder, names, left, count, console, means) if left else []
        except KeyboardInterrupt:
            say_stopped(folder, console)
            raise
        if sweep.lm_eval is not None:
            evaluate_folder(folder, sweep.lm_eval, lambda line: console.print(line, highlight=False, soft_wrap=True))
        return _finish(out, folder, failures, console)


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Turns the errors of a full disk into one NoRoom with the path, the bytes left and what to do."""
    try:
        yield
    except OSError as error:
        if not store.is_full(error):
            raise
        free = shutil.disk_usage(folder).free
        raise NoRoom(
            f"{folder}: no room left to write ({free} bytes free on this disk): {error}",
            "nothing finished is lost; make room, or raise the quota or file-size limit, then run the same command",
        ) from error


def enough_room(folder: Path, runs: int) -> None:
    """Raises InputError where the disk has less room than the runs left would take, and a fifth."""
    need, free = int(1.2 * runs * BYTES_PER_RUN), shutil.disk_usage(folder).free
    if free < need:
        raise InputError(
            f"{folder}: {runs} runs need about {need} bytes, {free} are free; make room, or choose another --out"
        )


def say_stopped(folder: Path, console: Console) -> None:
    """Bring the tables up to date and say what stands: the command was stopped."""
    from harness.report.tables import write_results
    from harness.sweep.status import read_status

    if not (folder / "plan.json").exists():
        console.print("stopped: before any run was planned; the same command goes on", highlight=False)
        return
    write_results(folder)
    states = read_status(folder)["states"]
    left = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    console.print(f"stopped: {left}; the same command goes on from there", highlight=False, soft_wrap=True)


def write_plan(folder: Path, sweep: SweepSpec, names: dict[str, str], packing: Packing) -> None:
    """`sweep.yaml` (resolved) and `plan.json`: what the sweep consists of, for status, tables and report."""
    text = yaml.safe_dump(dict(sweep.resolved), sort_keys=False, allow_unicode=True)
    store.write_atomic(folder / "sweep.yaml", text.encode("utf-8"))
    runs = [
        {"run_key": key, "name": names[key], "config": plain(run)}
        for key, run in zip(map(run_key, sweep.runs), sweep.runs, strict=True)
    ]
    head = {"name": sweep.name, "question": sweep.question, "notes": [*sweep.notes, *_data_notes(sweep.runs)]}
    store.write_json(folder / "plan.json", {**head, "packing": as_plan(packing), "runs": runs})


def _data_notes(runs: Sequence[RunSpec]) -> list[str]:
    if not any(isinstance(run.model, PathModelSpec) for run in runs):
        return data_notes(runs)
    from harness.sweep.text_setting import model_reading

    return data_notes(runs, model_reading)


def _left(sweep: SweepSpec, out: Path, folder: Path) -> list[RunSpec]:
    """The runs to make: those without an outcome, and reward models that these need and the cache has lost."""
    done = finished(folder, [run_key(run) for run in sweep.runs])
    open_runs = {key: run for run in sweep.runs if (key := run_key(run)) not in done}
    needed = {run_key(reward_run(run)) for run in open_runs.values() if run.reward_model is not None} - set(open_runs)
    if needed:
        from harness.sweep.rewards import load_reward

        for run in sweep.runs:
            if run_key(run) in needed and load_reward(out / "cache", run) is None:
                open_runs[run_key(run)] = run
    return [run for run in sweep.runs if run_key(run) in open_runs]


def _finished(folder: Path, run: RunSpec) -> bool:
    found = store.find_run(folder, run_key(run))
    result = store.load_result(found) if found is not None else None
    return result is not None and result["status"] in DONE


def worker_count(sweep: SweepSpec, workers: int | None) -> int:
    """One worker a core, or one for a GPU; never more than asked for."""
    if workers is not None:
        if workers < 1:
            raise InputError(f"--workers {workers}: expected at least 1")
        return workers
    device = sweep.runs[0].device
    gpu = device.startswith("cuda") or (device == "auto" and _has_gpu())
    return (
        1 if gpu else max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 1)
    )


def _gpu_memory(device: str) -> int:
    """Free bytes of the GPU that a sweep trains on; 0 where it trains on a CPU."""
    if not (device.startswith("cuda") or (device == "auto" and _has_gpu())):
        return 0
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0


def _has_gpu() -> bool:
    """Whether a CUDA device can be used; torch is imported only where a driver is installed at all."""
    if not (Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi")):
        return False
    import torch

    return torch.cuda.is_available()


def execute(
    sweep: SweepSpec,
    out: Path,
    folder: Path,
    names: dict[str, str],
    left: Sequence[RunSpec],
    workers: int,
    console: Console,
    means: Means = DEFAULT_MEANS,
) -> list[str]:
    """Build models, train packs, deliver runs as they finish; returns what failed, a line each.

    Raises Interrupted where a signal was heard: runs in training are kept and committed as `stopped`.
    """
    from harness.tracking.mlflow_outbox import Outbox

    shop = Shop(str(out / "cache"), str(folder), sweep.runs[0].device, names, means.keep_every, means.profile)
    profile = Profile(means.profile)
    with listening() as stop, stop.softly(), Progress(console, len(sweep.runs), len(sweep.runs) - len(left)) as shown:
        drain = _Drain(load_engine(means.engine, means.cluster), shop, workers, stop, shown)
        failures = _build(left, out / "cache", folder, drain)
        if not failures:
            deliver = Outbox(out, sweep.name).deliver if means.track else None
            failures = _train(left, folder, names, drain, deliver, profile)
        if stop.heard:
            raise Interrupted(stop.heard)
    for line in profile.finish(folder):
        console.print(line, highlight=False, soft_wrap=True)
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
    from harness.sweep.stages import builds

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
    store.write_json(folder / "packs.json", [{"pack": p.number, "runs": [run_key(r) for r in p.runs]} for p in packs])


def _built(cache: Path, key: str) -> bool:
    """Whether a model stands and is whole; a damaged file is set aside, so the model is built again."""
    from harness.sweep.stages import load_weights

    return load_weights(cache, key) is not None


def _shares(items: Sequence[Any], parts: int) -> list[list[Any]]:
    """`items` in at most `parts` even, contiguous shares."""
    parts = min(parts, len(items))
    edges = [round(i * len(items) / parts) for i in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(edges)]


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


def _finish(out: Path, folder: Path, failures: Sequence[str], console: Console) -> int:
    """Tables, report, tracking; then say where everything stands."""
    from harness.report.page import write_report
    from harness.tracking.mlflow_outbox import Outbox

    page = write_report(folder)
    console.print(f"results  {folder / 'results.csv'}\nreport   {page}", highlight=False, soft_wrap=True)
    waiting = Outbox(out, folder.name).finish(folder)
    if waiting:
        console.print(f"tracking {waiting} points waiting, run harness sync {folder}", highlight=False, soft_wrap=True)
    else:
        console.print("tracking harness dashboard (or nox -s dashboard) opens the comparison", highlight=False)
    for line in failures[:20]:
        console.print(f"failed   {line}", highlight=False, soft_wrap=True, style="red")
    return 1 if failures else 0
