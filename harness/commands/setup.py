"""What helps to begin: list, doctor, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import RUNS, Json, Out, Table
from harness.commands.printing import as_text, say


def list_(
    what: Annotated[Table, typer.Argument(metavar="objectives|corruptions|metrics")], as_json: Json = False
) -> None:
    """List objectives, corruptions or metrics. Shows their parameters and defaults."""
    from harness.commands.listing import listing, table

    rows = listing(what.value)
    say(as_text(rows) if as_json else table(rows))


def doctor(out: Out = RUNS, as_json: Json = False) -> None:
    """Check whether this machine can run a sweep. Looks at versions, device, memory, disk, tracking server, hub."""
    from harness.commands.doctor import BAD, examine, lines

    found = examine(out)
    plain = {name: {"state": f.state, "text": f.text, "fix": f.fix} for name, f in found.items()}
    say(as_text(plain) if as_json else "\n".join(lines(found)))
    raise typer.Exit(1 if any(f.state == BAD for f in found.values()) else 0)


def init(
    path: Annotated[Path, typer.Argument(metavar="SPEC", help="the spec to write, e.g. mine.yaml")],
    data: Annotated[
        str,
        typer.Option("--data", metavar="PATH", help="preference pairs: a file (JSON, CSV, Parquet) or a folder"),
    ] = "",
    model: Annotated[str, typer.Option("--model", metavar="FOLDER", help="a causal LM, or its hub id")] = "",
) -> None:
    """Write a commented spec to start from. For the embedded world, or for your own pairs and model."""
    from harness.commands.init import write_starter

    say("\n".join(write_starter(path, data, model)))
