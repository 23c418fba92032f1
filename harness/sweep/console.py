"""The output of a long command: progress, which `--quiet` drops, and at the end where the results are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

FAILURES = 20  # printed; the report has all of them


@dataclass(frozen=True)
class CommandOutput:
    """Lines to a terminal or a pipe; colours only on a terminal, and none under NO_COLOR. `quiet` drops progress."""

    console: Console = field(default_factory=Console)
    quiet: bool = False

    @property
    def live(self) -> Console:
        """Where live progress is drawn."""
        return Console(quiet=True) if self.quiet else self.console

    def progress(self, line: str) -> None:
        """Print progress."""
        if not self.quiet:
            self.result(line)

    def result(self, line: str) -> None:
        """Print a result, quiet or not."""
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def failed(self, lines: Sequence[str]) -> None:
        """Print what failed, a line each."""
        for line in lines[:FAILURES]:
            self.console.print(f"failed   {line}", highlight=False, soft_wrap=True, markup=False, style="red")

    def tracked(self, folder: Path, waiting: int) -> None:
        """Print whether everything has reached the tracking store."""
        if waiting:
            self.result(f"tracking {waiting} points waiting, run harness sync {folder}")
        else:
            self.result("tracking harness dashboard (or nox -s dashboard) opens the comparison")
