"""The driver of a sweep, also of one that was killed: finds what is missing, trains it, then tables and report.

The same command again trains only what is missing. If the tracking server is down, training continues and one line is
printed at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from harness.config.load import SweepSpec, reward_run
from harness.data.splits import data_notes
from harness.identity import plain, run_key
from harness.objectives.registry import OBJECTIVES
from harness.report.data.tables import write_results
from harness.run_names import planned_runs
from harness.storage.answer_file import answer_lines
from harness.storage.atomic import write_atomic, write_json
from harness.storage.lock import sweep_lock
from harness.storage.plan_file import PLAN
from harness.storage.runs import final_keys
from harness.sweep.console import CommandOutput
from harness.sweep.engines import CLUSTERS, slots
from harness.sweep.evaluate import check_asked, evaluate_runs
from harness.sweep.gold import check_gold, score_runs
from harness.sweep.packing import Packing, as_plan, counts_of, settle
from harness.sweep.preflight import check_data
from harness.sweep.resources import (
    check_free_space,
    check_shards,
    core_count,
    gpu_memory,
    most_shards,
    room_in,
    worker_count,
)
from harness.sweep.rounds import rounds
from harness.sweep.scheduler import DEFAULT_OPTIONS, SweepOptions, run_packs
from harness.sweep.status import read_status
from harness.tracking.connection import tracking_warning
from harness.tracking.outbox import Outbox
from harness.types import PathModelSpec, PlannedRun, RunSpec

__all__ = ["SweepOptions", "run_sweep"]


def run_sweep(
    sweep: SweepSpec,
    out: Path,
    workers: int | None = None,
    console: Console | None = None,
    options: SweepOptions = DEFAULT_OPTIONS,
    quiet: bool = False,
) -> int:
    """Run what is missing of `sweep` under `out`; returns the exit code (0, or 1 where a run failed).

    `quiet` prints only where the results are, and what failed.

    Raises InputError for data that cannot be used, Interrupted where the user stops it (nothing finished is lost, the
    tables are up to date, and the same command continues).
    """
    output = CommandOutput(console or Console(), quiet)
    check_asked(sweep)
    check_gold(sweep)
    if options.engine not in CLUSTERS:
        check_shards(sweep.runs)
    folder = out / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    with room_in(folder), sweep_lock(folder):
        if workers is None and options.engine in CLUSTERS:
            workers = slots(options.engine, options.cluster, most_shards(sweep.runs))
        count = worker_count(sweep, workers)
        every, cache = planned_runs(sweep.runs), out / "cache"
        if warning := tracking_warning(out):
            output.result(f"tracking {warning}")
        failures: list[str] = []
        runs: tuple[PlannedRun, ...] = ()

        def begin(missing: Sequence[PlannedRun]) -> None:
            check_data([one.run for one in runs], folder, output.progress)
            counts, memory = counts_of(sweep.runs, cache), gpu_memory(sweep.runs[0].device)
            packing = settle(folder, count, memory, every, _cores(count, options), counts)
            write_plan(folder, sweep, runs, packing)
            check_free_space(folder, [one.run for one in missing])
            done = len(runs) - len(missing)
            output.progress(f"{sweep.name}: {len(runs)} runs, {done} already done, {count} workers")

        try:
            for runs in rounds(sweep, folder):
                missing = _missing(runs, folder)
                if missing:
                    begin(missing)
                    failures = run_packs(folder, len(runs), missing, count, output, options)
                if failures:
                    break  # the same command tries them again, then come further rounds
            if not missing:  # the plan on disk is that of an earlier round, or of an earlier spec
                begin(missing)
            if sweep.lm_eval is not None:
                failures += evaluate_runs(folder, runs, sweep.lm_eval, output.progress, sweep.lm_eval.runs)
            if sweep.gold is not None:
                failures += score_runs(folder, runs, sweep.gold, output.progress)
        except KeyboardInterrupt:
            print_stopped(folder, output)
            raise
        return _finish(folder, failures, output)


def _cores(workers: int, options: SweepOptions) -> int:
    """Cores that the packs at work share."""
    return workers * options.cluster.cpus if options.engine in CLUSTERS else core_count()


def print_stopped(folder: Path, output: CommandOutput) -> None:
    """After a stop: bring the tables up to date and print the counts by status."""
    if not (folder / PLAN).exists():
        output.result("stopped before any run was planned; run the same command to continue")
        return
    write_results(folder)
    counts = ", ".join(f"{count} {status}" for status, count in read_status(folder)["states"].items() if count)
    output.result(f"stopped: {counts}; run the same command to continue")


def write_plan(folder: Path, sweep: SweepSpec, runs: Sequence[PlannedRun], packing: Packing) -> None:
    """`sweep.yaml` (resolved) and `plan.json`: what the sweep consists of, for status, tables and report."""
    text = yaml.safe_dump(dict(sweep.resolved), sort_keys=False, allow_unicode=True)
    write_atomic(folder / "sweep.yaml", text.encode("utf-8"))
    plan = {
        "name": sweep.name,
        "question": sweep.question,
        "notes": [*sweep.notes, *_data_notes([one.run for one in runs])],
        "report": plain(sweep.report),
        "packing": as_plan(packing),
        **({"seed_rounds": plain(sweep.rounds)} if sweep.rounds is not None else {}),
        "runs": [_planned(one) for one in runs],
    }
    write_json(folder / PLAN, plan)


def _planned(one: PlannedRun) -> dict[str, Any]:
    objective = one.run.objective
    rate = one.run.corruption.rate or 0.0
    published = OBJECTIVES[objective.name].published(dict(objective.hyperparameters), rate)
    return {"run_key": one.key, "name": one.name, "config": plain(one.run), "published": published}


def _data_notes(runs: Sequence[RunSpec]) -> list[str]:
    if not any(isinstance(run.model, PathModelSpec) for run in runs):
        return data_notes(runs)
    from harness.inputs.text import model_reading  # imports torch

    return data_notes(runs, model_reading)


def _missing(runs: Sequence[PlannedRun], folder: Path) -> list[PlannedRun]:
    """The runs to train: those without an outcome, and reward models that these need and the cache has lost."""
    keys = {planned.key for planned in runs} - final_keys(folder, [planned.key for planned in runs])
    learners = [planned.run for planned in runs if planned.key in keys and planned.run.reward_model is not None]
    needed = {run_key(reward_run(run)) for run in learners} - keys
    if needed:
        from harness.worker.reward_models import load_reward  # imports torch

        cache = folder.parent / "cache"
        keys |= {one.key for one in runs if one.key in needed and load_reward(cache, one.run) is None}
    return [planned for planned in runs if planned.key in keys]


def _finish(folder: Path, failures: Sequence[str], output: CommandOutput) -> int:
    """Write tables and report, deliver what is missing to tracking, and print where everything is."""
    from harness.report.page import write_report  # imports matplotlib

    page = write_report(folder)
    output.result(f"results  {folder / 'results.csv'}\nreport   {page}")
    output.tracked(folder, Outbox(folder).finish())
    output.failed(failures)
    for line in answer_lines(page.parent):
        output.result(line)
    return 1 if failures else 0
