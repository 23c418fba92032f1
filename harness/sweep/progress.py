"""Live progress of a sweep: packs, runs per hour and an ETA from work done; plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from rich.console import Console

from harness.sweep.packing import work_of
from harness.text import duration
from harness.types import RunStatus
from harness.worker.protocol import Event, ModelBuilt, PackStep, PackTask, RunDone, TaskFailed

PLAIN_SECONDS = 10.0


@dataclass
class Progress:
    """Counts work in trained pairs, so that long packs count for more. Use as a context manager."""

    console: Console
    total_runs: int
    runs_done: int = 0
    packs: dict[int, PackTask] = field(default_factory=dict)
    _started: float = 0.0
    _fresh: int = 0  # runs finished by this command
    _diverged: int = 0
    _failed: int = 0
    _units: dict[int, float] = field(default_factory=dict)
    _stage: str = ""
    _stage_done: int = 0
    _stage_total: int = 0
    _printed: float = 0.0
    _live: Any = None

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        # In a notebook rich redraws with ipywidgets alone; without them lines are printed.
        if self.console.is_terminal and (not self.console.is_jupyter or find_spec("ipywidgets")):
            from rich.live import Live

            self._live = Live(self._table(), console=self.console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
            self._live = None

    def stage(self, name: str, total: int) -> None:
        """A stage before the runs begins: `total` models to build."""
        self._stage, self._stage_done, self._stage_total = name, 0, total
        self._show(force=True)

    def start_runs(self, tasks: Sequence[PackTask]) -> None:
        """The runs begin; the clock of the ETA starts here."""
        self._stage = ""
        self.packs = {task.number: task for task in tasks}
        self._units = dict.fromkeys(self.packs, 0.0)
        self._started = time.monotonic()
        self._show(force=True)

    def add_packs(self, tasks: Sequence[PackTask]) -> None:
        """Packs in place of ones that failed."""
        self.packs |= {task.number: task for task in tasks}
        self._units |= dict.fromkeys((task.number for task in tasks), 0.0)

    def take(self, event: Event) -> None:
        """Count one event."""
        match event:
            case ModelBuilt():
                self._stage_done += 1
            case PackStep(number, step, steps):
                # Evaluation and sampling at the end cost about a tenth of a pack: it is not done at its last step.
                self._units[number] = 0.9 * step / max(steps, 1) * _cost(self.packs[number])
            case RunDone(number, _, status):
                self.runs_done += 1
                self._fresh += 1
                self._diverged += status is RunStatus.DIVERGED
                pack = self.packs[number]
                self._units[number] += 0.1 * _cost(pack) / len(pack.runs)
            case TaskFailed(number) if number in self.packs:
                self._failed += len(self.packs[number].runs)
                self._units[number] = _cost(self.packs[number])
        self._show()

    def eta(self) -> float | None:
        """Seconds left by the work done so far, or None before there is any."""
        done, total = sum(self._units.values()), sum(map(_cost, self.packs.values()))
        spent = time.monotonic() - self._started
        return None if done <= 0 or spent < 2 else spent * (total - done) / done

    def line(self) -> str:
        """One line of plain text."""
        if self._stage:
            return f"{self._stage}: {self._stage_done} of {self._stage_total} models"
        spent = max(time.monotonic() - self._started, 1e-9)
        eta = self.eta()
        parts = [f"{self.runs_done} of {self.total_runs} runs"]
        if self._fresh:
            parts.append(f"{self._fresh / spent * 3600:,.0f} runs/h")
        parts.append(f"about {duration(eta)} left" if eta is not None else "measuring speed")
        parts += [f"{self._diverged} diverged"] * bool(self._diverged) + [f"{self._failed} failed"] * bool(self._failed)
        return ", ".join(parts)

    def _show(self, force: bool = False) -> None:
        if self._live is not None:
            self._live.update(self._table())
        elif force or time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            self.console.print(self.line(), highlight=False)

    def _table(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        if self._stage:
            grid.add_row(ProgressBar(max(self._stage_total, 1), self._stage_done, width=30), self.line())
            return grid
        grid.add_row(ProgressBar(max(self.total_runs, 1), self.runs_done, width=30), self.line())
        total = {number: _cost(task) for number, task in self.packs.items()}
        for number, units in self._units.items():
            if 0 < units < 0.999 * total[number]:
                runs = self.packs[number].runs
                bar = ProgressBar(total[number], units, width=30)
                grid.add_row(bar, f"pack {number}: {len(runs)} runs of {runs[0].run.objective.name}")
        return grid


def _cost(task: PackTask) -> float:
    return len(task.runs) * work_of(task.runs[0].run)
