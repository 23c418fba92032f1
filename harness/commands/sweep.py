"""`harness plan`, `sweep` and `study`: commands that train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from harness import api
from harness.commands.options import RUNS, Engines, Every, Json, MaxRuns, Out, Quiet, Set, Spec, Workers
from harness.commands.printing import as_text, say
from harness.types import InputError


def plan(
    spec: Spec,
    out: Out = RUNS,
    set_: Set = None,
    max_runs: MaxRuns = None,
    preflight: Annotated[bool, typer.Option("--preflight", help="check data, tokens, labels and reference")] = False,
    predict: Annotated[
        bool, typer.Option("--predict", help="train short pilots; write what they predict of each run")
    ] = False,
    as_json: Json = False,
    engine: Annotated[Engines | None, typer.Option("--engine", help="forecast for this engine")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="GPUs to plan for; needs --engine")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="packs at a time; needs --engine")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress of --predict's pilots")] = False,
) -> None:
    """Show what a sweep would run and cost. Trains nothing (but --predict's pilots); counts what is already done."""
    if engine is None and (gpus or workers):
        raise InputError("--gpus and --workers need --engine")
    found = api.plan(
        spec,
        out=out,
        overrides=set_ or (),
        max_runs=max_runs,
        preflight=preflight,
        predict=predict,
        engine=engine,
        workers=workers,
        gpus=gpus,
        quiet=quiet or as_json,
    )
    say(as_text(found.facts) if as_json else found.text)
    raise typer.Exit(0 if found.fit else 2)


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
    from harness.sweep.engines import Cluster

    cluster = Cluster(address, gpus_per_pack, 1, partition, account, minutes)
    if dry_run:
        if engine is not Engines.slurm:
            raise InputError("--dry-run: needs --engine slurm; to see what a sweep would run, use harness plan")
        from harness.config.load import load_sweep
        from harness.run_names import planned_runs
        from harness.sweep.engines.slurm import array_script

        loaded = load_sweep(spec, set_ or (), max_runs)
        say(array_script(planned_runs(loaded.runs), out / loaded.name, workers, cluster))
        return
    _exit(
        lambda: api.sweep(
            spec,
            out=out,
            overrides=set_ or (),
            workers=workers,
            max_runs=max_runs,
            engine=engine,
            checkpoint_every=checkpoint_every,
            profile=profile,
            cluster=cluster,
            quiet=quiet,
        )
    )


def study(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="the study as YAML, e.g. experiments/study.yaml")],
    out: Out = RUNS,
    set_: Set = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Tune every objective under the same budget. Runs the winners on fresh seeds; the same command resumes."""
    _exit(lambda: api.study(spec, out=out, overrides=set_ or (), workers=workers, quiet=quiet))


def _exit(command: Callable[[], api.Outcome]) -> NoReturn:
    """Exit with 0, with 1 where a run failed, or with 130 or 143 where a signal stopped the command."""
    from harness.signals import stoppable

    raise typer.Exit(stoppable(lambda: 0 if command().ok else 1))
