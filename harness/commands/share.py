"""What brings sweeps together: publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import api
from harness.commands.options import Folder
from harness.commands.printing import say


def publish(
    folder: Folder, to: Annotated[Path, typer.Option("--to", metavar="DIR", help="the folder to write")]
) -> None:
    """Write what of a sweep may leave this machine: results, cells, provenance and plots, no texts, paths or names."""
    say(str(api.publish(folder, to).folder))
