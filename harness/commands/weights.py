"""`harness eval` and `export`: commands on kept weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.api import existing
from harness.commands.options import Json, Quiet, Runs
from harness.commands.printing import as_text, escaped, say


def eval_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a run's folder, or a sweep's for all its runs")],
    tasks: Annotated[
        str | None, typer.Option("--tasks", metavar="A,B", help="names of lm-eval tasks (preference: held-out pairs)")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="first N documents of each task")] = None,
    fewshot: Annotated[int | None, typer.Option("--num-fewshot", min=0, help="examples before each document")] = None,
    runs: Annotated[Runs, typer.Option("--runs", help="which runs of a sweep: all, best or flagged")] = Runs.all,
    include: Annotated[
        Path | None, typer.Option("--include-path", metavar="DIR", help="lm-eval tasks of your own, as YAML files")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust-task-code", help="run the Python that your own tasks name")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run lm-eval tasks on kept weights. Compares with the reference; without --tasks, on the held-out pairs."""
    existing(folder)
    from harness.sweep.evaluate import evaluate_folder, publish, results_json
    from harness.types import LmEvalSpec

    names = tuple(name.strip() for name in tasks.split(",")) if tasks is not None else LmEvalSpec().tasks
    asked = LmEvalSpec(names, limit, fewshot, runs.value, include_path=str(include or ""), trust_task_code=trust)
    found, failures = evaluate_folder(folder, asked, _nothing if as_json or quiet else say)
    publish(folder, _nothing if as_json else say)
    if as_json:
        say(as_text(results_json(found, alone=(folder / "result.json").exists())))
    for line in failures:
        print(escaped(f"failed   {line}"), file=sys.stderr)
    raise typer.Exit(1 if failures else 0)


def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="a run's folder, e.g. runs/quick/1a2b3c4d-dpo")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="the new folder")],
) -> None:
    """Write a run's kept weights as a transformers or peft folder. Includes tokenizer and model card."""
    existing(folder)
    from harness.models.export import export_run

    export_run(folder, to)
    say(str(to))


def _nothing(_: str) -> None:
    pass
