"""What trains: plan, sweep, study."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.options import RUNS, Engines, Every, Json, MaxRuns, Out, Quiet, Set, Spec, Workers, writable
from harness.commands.printing import as_text, say
from harness.types import InputError, PathModelSpec

if TYPE_CHECKING:
    from harness.data.splits import Reading


def plan(
    spec: Spec,
    out: Out = RUNS,
    set_: Set = None,
    max_runs: MaxRuns = None,
    preflight: Annotated[bool, typer.Option("--preflight", help="check data, tokens, labels and reference")] = False,
    as_json: Json = False,
    engine: Annotated[Engines | None, typer.Option("--engine", help="forecast for this engine")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="GPUs, one pack on each; needs --engine")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="packs at a time; needs --engine")] = None,
) -> None:
    """Show what a sweep would run and cost. Trains nothing; counts what is already done."""
    from harness.config.load import load_sweep
    from harness.sweep.estimates import Machines
    from harness.sweep.plan import describe, render

    if engine is None and (gpus or workers):
        raise InputError("--gpus and --workers need --engine")
    machines = Machines(engine.value, workers or gpus or os.cpu_count() or 1) if engine is not None else None
    loaded = load_sweep(spec, set_ or (), max_runs)
    described = describe(loaded, out, machines, _model_reading() if preflight else None)
    if preflight:
        from harness.sweep.preflight import preflight as look
        from harness.sweep.preflight import report_lines

        described["preflight"] = look(loaded, sum(described["seconds"].values()), out)
    say(as_text(described) if as_json else render(described))
    if preflight:
        if not as_json:
            say("\n".join(report_lines(described["preflight"])))
        raise typer.Exit(2 if any(one["severity"] == "error" for one in described["preflight"]["findings"]) else 0)


def _model_reading() -> Callable[[PathModelSpec], Reading]:
    from harness.inputs.text import model_reading  # imports torch

    return model_reading


def sweep(
    spec: Spec,
    out: Out = RUNS,
    set_: Set = None,
    workers: Workers = None,
    max_runs: MaxRuns = None,
    engine: Annotated[Engines, typer.Option("--engine", help="where packs train; inline: all in this process")] = (
        Engines.process
    ),
    checkpoint_every: Every = 60.0,
    profile: Annotated[bool, typer.Option("--profile", help="measure where the time goes, in profile.json")] = False,
    address: Annotated[str, typer.Option("--address", help="ray: `auto` or HOST:PORT; default: start Ray here")] = "",
    gpus_per_pack: Annotated[
        float | None, typer.Option("--gpus-per-pack", min=0, help="ray, slurm: GPUs per pack; 0.5: two share one")
    ] = None,
    partition: Annotated[str, typer.Option("--partition", help="slurm: partition")] = "",
    account: Annotated[str, typer.Option("--account", help="slurm: account")] = "",
    minutes: Annotated[int, typer.Option("--time", min=1, metavar="MINUTES", help="slurm: limit of one job")] = 240,
    quiet: Quiet = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="slurm: print the array script, submit nothing")] = False,
) -> None:
    """Run a sweep and write its report. The same command resumes: it runs only what is missing."""
    from harness.config.load import load_sweep

    loaded = load_sweep(spec, set_ or (), max_runs)
    from harness.sweep.engines import Cluster

    cluster = Cluster(address, gpus_per_pack, 1, partition, account, minutes)
    if dry_run:
        from harness.run_names import planned_runs
        from harness.sweep.engines.slurm import array_script

        if engine is not Engines.slurm:
            raise InputError("--dry-run: needs --engine slurm; to see what a sweep would run, use harness plan")
        say(array_script(planned_runs(loaded.runs), out / loaded.name, workers, cluster))
        return
    writable(out)
    cores = os.cpu_count() or 1
    if workers is not None and workers > cores and engine is Engines.process:
        print(f"warning: {workers} workers on {cores} cores; more than one worker per core is slower", file=sys.stderr)
    from harness.signals import stoppable
    from harness.sweep.run import SweepOptions, run_sweep

    options = SweepOptions(engine.value, checkpoint_every, cluster=cluster, profile=profile)
    raise typer.Exit(stoppable(lambda: run_sweep(loaded, out, workers, options=options, quiet=quiet)))


def study(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="the study as YAML, e.g. experiments/study.yaml")],
    out: Out = RUNS,
    set_: Set = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Tune every objective under the same budget. Runs the winners on fresh seeds; the same command resumes."""
    from harness.config.study import load_study

    loaded = load_study(spec, set_ or ())
    writable(out)
    from harness.signals import stoppable
    from harness.study.run import run_study

    raise typer.Exit(stoppable(lambda: run_study(loaded, out, workers, quiet=quiet)))
