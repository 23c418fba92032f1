"""Arguments and options that verbs share, and the words that some of them choose from."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.api import check_writable

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="the sweep as YAML, e.g. experiments/quick.yaml")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="a sweep's folder, e.g. runs/quick")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="folder for runs, caches and the tracking store")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key of SPEC; repeatable")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="worker processes; default: one per core")]
MaxRuns = Annotated[int | None, typer.Option("--max-runs", min=1, help="allow a grid of up to N runs (10000)")]
Every = Annotated[float, typer.Option("--checkpoint-every", min=0, metavar="SECONDS", help="between checkpoints")]
Quiet = Annotated[bool, typer.Option("--quiet", help="print only where results are, what they say, what failed")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
RUNS = Path("runs")


class Engines(StrEnum):
    """Where packs can be trained."""

    process = "process"
    inline = "inline"
    ray = "ray"
    slurm = "slurm"


class Table(StrEnum):
    """What `list` can list."""

    objectives = "objectives"
    corruptions = "corruptions"
    metrics = "metrics"
    formats = "formats"
    sections = "sections"


class Texts(StrEnum):
    """What a report shows of prompts, responses and answers."""

    none = "none"
    ids = "ids"
    short = "short"
    full = "full"


class Runs(StrEnum):
    """Which runs of a sweep `eval` takes."""

    all = "all"
    best = "best"
    flagged = "flagged"


def writable(out: Path) -> None:
    """Raises InputError where `out` takes no files; what the command writes from here on is for its owner only."""
    check_writable(out)
    os.umask(0o077)
