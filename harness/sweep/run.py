"""The driver: claim the sweep, write its plan, drain what is missing, then tables, report and tracking.

Running the same command again does only what is missing. A dead tracking server costs a line at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from harness.config.load import SweepSpec, reward_run
from harness.data.splits import data_notes
from harness.identity import plain, run_key
from harness.run_names import readable_names
from harness.storage.atomic import write_atomic, write_json
from harness.storage.lock import claim_sweep
from harness.sweep.console import CommandOutput
from harness.sweep.engines import CLUSTERS, slots
from harness.sweep.evaluate import check_asked, evaluate_runs
from harness.sweep.packing import Packing, as_plan, settle
from harness.sweep.plan import finished
from harness.sweep.preflight import check_data
from harness.sweep.resources import check_free_space, gpu_memory, room_in, worker_count
from harness.sweep.scheduler import DEFAULT_OPTIONS, SweepOptions, run_packs
from harness.tracking.connection import tracking_warning
from harness.types import PathModelSpec, RunSpec

__all__ = ["SweepOptions", "run_sweep"]


def run_sweep(
    sweep: SweepSpec,
    out: Path,
    workers: int | None = None,
    console: Console | None = None,
    means: SweepOptions = DEFAULT_OPTIONS,
    quiet: bool = False,
) -> int:
    """Run what is missing of `sweep` under `out`; returns the exit code (0, or 1 where a run failed).

    `quiet` says only where everything stands at the end, and what failed.

    Raises InputError for data that cannot be used, Interrupted where the user stops it (nothing finished is lost, and
    tables say what stands: the same command goes on).
    """
    voice = CommandOutput(console or Console(), quiet)
    check_asked(sweep)
    folder = out / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    with room_in(folder), claim_sweep(folder):
        names = dict(zip(map(run_key, sweep.runs), readable_names(sweep.runs), strict=True))
        if workers is None and means.engine in CLUSTERS:
            workers = slots(means.engine, means.cluster)
        count = worker_count(sweep, workers)
        write_plan(folder, sweep, names, settle(folder, count, gpu_memory(sweep.runs[0].device)))
        check_data(sweep.runs, folder, voice.progress)
        left = _left(sweep, out, folder)
        check_free_space(folder, left)
        voice.progress(
            f"{sweep.name}: {len(sweep.runs)} runs, {len(sweep.runs) - len(left)} already done, {count} workers"
        )
        if warning := tracking_warning(out):
            voice.result(f"tracking {warning}")
        try:
            failures = run_packs(sweep, out, folder, names, left, count, voice, means) if left else []
            if sweep.lm_eval is not None:
                asked = sweep.lm_eval
                failures += evaluate_runs(folder, sweep.runs, asked, voice.progress, asked.runs)
        except KeyboardInterrupt:
            say_stopped(folder, voice)
            raise
        return _finish(out, folder, failures, voice)


def say_stopped(folder: Path, voice: CommandOutput) -> None:
    """Bring the tables up to date and say what stands: the command was stopped."""
    from harness.report.data.tables import write_results
    from harness.sweep.status import read_status

    if not (folder / "plan.json").exists():
        voice.result("stopped before any run was planned; run the same command to continue")
        return
    write_results(folder)
    states = read_status(folder)["states"]
    left = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    voice.result(f"stopped: {left}; run the same command to continue")


def write_plan(folder: Path, sweep: SweepSpec, names: dict[str, str], packing: Packing) -> None:
    """`sweep.yaml` (resolved) and `plan.json`: what the sweep consists of, for status, tables and report."""
    text = yaml.safe_dump(dict(sweep.resolved), sort_keys=False, allow_unicode=True)
    write_atomic(folder / "sweep.yaml", text.encode("utf-8"))
    runs = [
        {"run_key": key, "name": names[key], "config": plain(run)}
        for key, run in zip(map(run_key, sweep.runs), sweep.runs, strict=True)
    ]
    head = {"name": sweep.name, "question": sweep.question, "notes": [*sweep.notes, *_data_notes(sweep.runs)]}
    head["report"] = plain(sweep.report)
    write_json(folder / "plan.json", {**head, "packing": as_plan(packing), "runs": runs})


def _data_notes(runs: Sequence[RunSpec]) -> list[str]:
    if not any(isinstance(run.model, PathModelSpec) for run in runs):
        return data_notes(runs)
    from harness.inputs.text import model_reading

    return data_notes(runs, model_reading)


def _left(sweep: SweepSpec, out: Path, folder: Path) -> list[RunSpec]:
    """The runs to make: those without an outcome, and reward models that these need and the cache has lost."""
    done = finished(folder, [run_key(run) for run in sweep.runs])
    open_runs = {key: run for run in sweep.runs if (key := run_key(run)) not in done}
    needed = {run_key(reward_run(run)) for run in open_runs.values() if run.reward_model is not None} - set(open_runs)
    if needed:
        from harness.worker.reward_models import load_reward

        for run in sweep.runs:
            if run_key(run) in needed and load_reward(out / "cache", run) is None:
                open_runs[run_key(run)] = run
    return [run for run in sweep.runs if run_key(run) in open_runs]


def _finish(out: Path, folder: Path, failures: Sequence[str], voice: CommandOutput) -> int:
    """Tables, report, tracking; then say where everything stands."""
    from harness.report.page import write_report
    from harness.tracking.outbox import Outbox

    page = write_report(folder)
    voice.result(f"results  {folder / 'results.csv'}\nreport   {page}")
    voice.tracked(folder, Outbox(out, folder.name).finish(folder))
    voice.failed(failures)
    return 1 if failures else 0
