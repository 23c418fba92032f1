"""`harness list`, `doctor` and `init`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.api import existing
from harness.commands.options import RUNS, Json, Out, Table
from harness.commands.printing import as_text, escaped, say
from harness.text import look_up
from harness.types import InputError


def list_(
    what: Annotated[Table, typer.Argument(metavar="objectives|corruptions|metrics|formats|sections")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="this row alone, with its parameters")] = None,
    family: Annotated[str | None, typer.Option("--family", help="objectives of one family, such as pair")] = None,
    as_json: Json = False,
) -> None:
    """List objectives, corruptions, metrics, data formats or report sections; with a name, its parameters as well."""
    from harness.commands.listing import details, listing, problems, table

    rows = listing(what.value)
    if family is not None:
        families = sorted({row["family"] for row in rows if "family" in row})
        if family not in families:
            raise InputError(f"--family: '{family}'; expected one of {', '.join(families) or 'none: ' + what.value}")
        rows = [row for row in rows if row["family"] == family]
    if name is not None:
        rows = [look_up({row["name"]: row for row in rows}, name, what.value.removesuffix("s"))]
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    say(as_text(rows) if as_json else table(rows, width) if name is None else details(rows[0], width))
    for line in problems(what.value):
        print(escaped(line), file=sys.stderr)


def check_plugin(
    distribution: Annotated[str, typer.Argument(metavar="DISTRIBUTION", help="the installed package, as pip names it")],
    sweep: Annotated[Path | None, typer.Option("--sweep", metavar="FOLDER", help="draw its sections of it")] = None,
) -> None:
    """Check the objectives, corruptions, metrics, formats and sections of a plug-in. Prints each law that fails."""
    if sweep is not None:
        existing(sweep)
    from harness.commands.check_plugin import check_distribution

    checked, broken = check_distribution(distribution, sweep)
    say("\n".join([*checked, *broken, f"{len(checked)} rows checked, {len(broken)} problems"]))
    raise typer.Exit(1 if broken else 0)


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
    model: Annotated[str, typer.Option("--model", metavar="FOLDER", help="a causal LM, its hub id, or smollm2")] = "",
) -> None:
    """Write a commented spec to start from. For the embedded world, or for your own pairs and model."""
    from harness.commands.init import write_starter

    say("\n".join(write_starter(path, data, model)))
