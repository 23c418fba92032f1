"""What a long command says: progress on the way, which `--quiet` silences, and at the end where everything stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

FAILURES = 20  # said one by one; all of them stand in the report


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
        """What happens on the way."""
        if not self.quiet:
            self.result(line)

    def result(self, line: str) -> None:
        """What stands at the end; said whether quiet or not."""
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def failed(self, lines: Sequence[str]) -> None:
        """What went wrong, a line each."""
        for line in lines[:FAILURES]:
            self.console.print(f"failed   {line}", highlight=False, soft_wrap=True, markup=False, style="red")

    def tracked(self, folder: Path, waiting: int) -> None:
        """Whether everything has reached the tracking store."""
        if waiting:
            self.result(f"tracking {waiting} points waiting, run harness sync {folder}")
        else:
            self.result("tracking harness dashboard (or nox -s dashboard) opens the comparison")
