"""`harness compare` and `publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import api
from harness.commands.options import Folder, Json, writable
from harness.commands.printing import as_text, say


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="sweep folders or published ones")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder of the comparison")] = Path("comparison"),
    track: Annotated[bool, typer.Option("--track", help="also as runs in MLflow")] = False,
    as_json: Json = False,
) -> None:
    """Put sweeps side by side: does the order hold, what differs, what does model size change."""
    writable(out)
    found = api.compare(*folders, out=out, track=track)
    say(as_text(found.facts) if as_json else repr(found))


def publish(
    folder: Folder, to: Annotated[Path, typer.Option("--to", metavar="DIR", help="the folder to write")]
) -> None:
    """Write what of a sweep may leave this machine: results, cells, provenance and plots, no texts, paths or names."""
    say(str(api.publish(folder, to).folder))
