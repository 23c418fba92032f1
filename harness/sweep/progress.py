"""Live progress of a sweep: stages with counts, steps inside packs, an ETA; plain lines without a terminal.

Time left is counted in assumed seconds (`estimates.py`), phase by phase, and each phase is scaled by how long it has
really taken so far.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from harness.storage.atomic import write_json
from harness.sweep.estimates import Measured, Seconds, evaluations, makespan, run_seconds, scoring_seconds, step_weights
from harness.sweep.packing import Source, source_of
from harness.sweep.token_counts import TokenCounts
from harness.text import duration
from harness.types import RunSpec, RunStatus
from harness.worker.protocol import Event, ModelBuilt, PackStep, PackTask, Phase, RunDone, Scored, TaskFailed

PLAIN_SECONDS = 10.0
FILE_SECONDS = 2.0
PROGRESS = "progress.json"
FIRST_SECONDS = 5.0  # of work before an estimate is shown


@dataclass(frozen=True)
class Speed:
    """What time is reckoned from before any is measured: token counts by source, earlier runs, threads of a pack."""

    counts: Mapping[Source, TokenCounts | None] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)
    threads: int = 1

    def of(self, pack: PackTask) -> Seconds:
        """Wall seconds of a pack."""
        run, lanes = pack.runs[0].run, len(pack.runs) / self.threads
        one = run_seconds(run, self.counts.get(source_of(run)), self.measured.rate(step_weights(run)))
        spread = lanes / run.training.shards  # one process of a group samples
        return Seconds(spread * one.training, spread * one.evaluation, lanes * one.sampling)

    def runs(self, runs: Iterable[RunSpec]) -> float:
        """Core seconds of runs."""
        return sum(
            run_seconds(run, self.counts.get(source_of(run)), self.measured.rate(step_weights(run))).total
            for run in runs
        )

    def scoring(self, sources: Mapping[Source, Sequence[RunSpec]]) -> float:
        """Core seconds of scoring the references of these runs."""
        return sum(
            scoring_seconds(runs, self.counts.get(source), self.measured.rate(step_weights(runs[0])))
            for source, runs in sources.items()
        )


@dataclass
class _Pack:
    """A pack of the sweep: its assumed seconds by phase, and how much of them is done."""

    task: PackTask
    seconds: Mapping[Phase, float]
    measured: int  # evaluations that compute
    free: int  # those before them, which do not
    done: dict[Phase, float] = field(default_factory=dict)
    phase: Phase | None = None  # None: has not begun
    since: float = 0.0  # when the phase began
    step: PackStep | None = None
    first: tuple[float, int] = (0.0, 0)  # when it began to train, and the tokens until then
    evaluated: int = 0
    ended: bool = False

    def left(self, scale: Mapping[Phase, float]) -> float:
        """Seconds to its end."""
        if self.ended:
            return 0.0
        return sum(max(whole - self.done.get(phase, 0.0), 0.0) * scale[phase] for phase, whole in self.seconds.items())


@dataclass
class Progress:
    """What is done and what is left. Use as a context manager. `file` keeps it for `harness status`."""

    console: Console
    total_runs: int
    runs_done: int = 0
    speed: Speed = field(default_factory=Speed)
    workers: int = 1
    file: Path | None = None
    unit: str = "runs"  # what is trained
    packs: dict[int, _Pack] = field(default_factory=dict)
    _started: float = 0.0
    _fresh: int = 0  # runs finished by this command
    _diverged: int = 0
    _failed: int = 0
    _took: dict[Phase, float] = field(default_factory=dict)  # seconds that phases have taken
    _assumed: dict[Phase, float] = field(default_factory=dict)  # and those that were assumed for them
    _stage: str = ""
    _unit: str = ""
    _stage_seconds: float = 0.0  # assumed of the stage
    _later: float = 0.0  # and of the runs after it
    _counts: dict[int, tuple[int, int]] = field(default_factory=dict)  # of the stage: done and all, by task
    _stage_total: int = 0
    _stage_started: float = 0.0
    _printed: float = 0.0
    _written: float = 0.0
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
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def stage(self, name: str, total: int, unit: str, seconds: float = 0.0, later: float = 0.0) -> None:
        """A stage before the runs begins: `total` things to do (0: its tasks say), in `seconds` of a core, and then
        the runs in `later` ones."""
        self._stage, self._unit, self._stage_total = name, unit, total
        self._stage_seconds, self._later = seconds / self.workers, later / self.workers
        self._counts, self._stage_started = {}, time.monotonic()
        self._show(force=True)

    def advance(self, done: int) -> None:
        """So many more things of the stage are done."""
        before, _ = self._counts.get(0, (0, 0))
        self._counts[0] = (before + done, 0)
        self._show()

    def start_runs(self, tasks: Sequence[PackTask]) -> None:
        """The runs begin; the clock of the ETA starts here."""
        self._stage = ""
        self._started = time.monotonic()
        self.add_packs(tasks)
        self._show(force=True)

    def add_packs(self, tasks: Sequence[PackTask]) -> None:
        """Packs to train, also in place of ones that failed."""
        for task in tasks:
            own = self.speed.of(task)
            seconds = {Phase.TRAINING: own.training, Phase.EVALUATING: own.evaluation, Phase.SAMPLING: own.sampling}
            run = task.runs[0].run
            self.packs[task.number] = _Pack(
                task, seconds, evaluations(run), run.evaluation.checkpoints - evaluations(run)
            )

    def take(self, event: Event) -> None:
        """Count one event."""
        match event:
            case ModelBuilt(number):
                done, _ = self._counts.get(number, (0, 0))
                self._counts[number] = (done + 1, 0)
            case Scored(number, done, total):
                self._counts[number] = (done, total)
                self._stage_total = sum(total for _, total in self._counts.values())
            case PackStep(number):
                self._step(self.packs[number], event)
            case RunDone(number, _, status):
                self.runs_done += 1
                self._fresh += 1
                self._diverged += status is RunStatus.DIVERGED
                pack = self.packs[number]
                if pack.phase is Phase.SAMPLING and not pack.ended:
                    self._add(pack, {Phase.SAMPLING: pack.seconds[Phase.SAMPLING]})
                pack.ended = True
            case TaskFailed(number) if number in self.packs:
                self._failed += len(self.packs[number].task.runs)
                self.packs[number].ended = True
        self._show()

    def _step(self, pack: _Pack, now: PackStep) -> None:
        """A pack goes on: what it has done since its last event took the time since then."""
        before = pack.step
        if before is None or pack.phase not in (Phase.TRAINING, Phase.EVALUATING):
            pack.since = time.monotonic()
            if now.phase is not Phase.PREPARING:  # it may go on from a checkpoint
                pack.done[Phase.TRAINING] = now.step / max(now.steps, 1) * pack.seconds[Phase.TRAINING]
        else:
            done = {Phase.TRAINING: (now.step - before.step) / max(now.steps, 1) * pack.seconds[Phase.TRAINING]}
            if pack.phase is Phase.EVALUATING:  # and steps behind it
                pack.evaluated += 1
                free = pack.evaluated <= pack.free and before.step == 0
                done[Phase.EVALUATING] = 0.0 if free else pack.seconds[Phase.EVALUATING] / max(pack.measured, 1)
            self._add(pack, done)
        if now.phase is Phase.TRAINING and not pack.first[0]:
            pack.first = (time.monotonic(), now.tokens)
        if now.phase is Phase.SAMPLING:  # whatever was assumed of the phases before, they are over
            pack.done |= {phase: pack.seconds[phase] for phase in (Phase.TRAINING, Phase.EVALUATING)}
        pack.phase, pack.step = now.phase, now

    def _add(self, pack: _Pack, done: Mapping[Phase, float]) -> None:
        """So many assumed seconds of phases are done; the time since the pack's last event is shared between them."""
        now, scales = time.monotonic(), self._scales()
        expected = {phase: assumed * scales[phase] for phase, assumed in done.items()}
        whole = sum(expected.values())
        for phase, assumed in done.items():
            pack.done[phase] = pack.done.get(phase, 0.0) + assumed
            if assumed:
                share = (now - pack.since) * expected[phase] / whole
                self._took[phase] = self._took.get(phase, 0.0) + share
                self._assumed[phase] = self._assumed.get(phase, 0.0) + assumed
        pack.since = now

    def _scales(self) -> dict[Phase, float]:
        """By how much each phase takes longer than assumed: as measured, else as the others do together."""
        took, assumed = sum(self._took.values()), sum(self._assumed.values())
        other = took / assumed if assumed else 1.0
        return {
            phase: self._took[phase] / self._assumed[phase] if self._assumed.get(phase) else other
            for phase in (Phase.TRAINING, Phase.EVALUATING, Phase.SAMPLING)
        }

    def eta(self) -> float | None:
        """Seconds left, or None before any work has been measured."""
        if self._stage or sum(self._took.values()) < FIRST_SECONDS:
            return None
        scales = self._scales()
        now = time.monotonic()
        left = []
        for pack in self.packs.values():
            spent = now - pack.since if pack.phase is not None and not pack.ended else 0.0
            left.append(max(pack.left(scales) - spent, 0.0))
        return makespan(sorted((one for one in left if one), reverse=True), self.workers)

    def line(self) -> str:
        """One line of plain text."""
        if self._stage:
            return self._stage_line()
        spent = max(time.monotonic() - self._started, 1e-9)
        eta = self.eta()
        parts = [f"{self.runs_done} of {self.total_runs} {self.unit}"]
        if self._fresh:
            parts.append(f"{self._fresh / spent * 3600:,.0f} {self.unit}/h")
        if tokens := sum(map(_tokens_per_second, self._running())):
            parts.append(f"{tokens:,.0f} tokens/s")
        parts.append(f"about {duration(eta)} left" if eta is not None else "measuring speed")
        parts += [f"{self._diverged} diverged"] * bool(self._diverged) + [f"{self._failed} failed"] * bool(self._failed)
        return ", ".join(parts)

    def _stage_line(self) -> str:
        done = sum(one for one, _ in self._counts.values())
        if not self._stage_total:
            return f"{self._stage}: opening model and data"
        text = f"{self._stage}: {done:,} of {self._stage_total:,} {self._unit}"
        spent = time.monotonic() - self._stage_started
        if not done or spent < FIRST_SECONDS:
            return text
        left = spent * (self._stage_total - done) / done
        text = f"{text}, about {duration(left)} left"
        if not self._stage_seconds:
            return text
        scale = (spent + left) / self._stage_seconds
        return f"{text}, then about {duration(scale * self._later)} for the runs"

    def _running(self) -> list[_Pack]:
        return [pack for pack in self.packs.values() if pack.phase is not None and not pack.ended]

    def pack_lines(self) -> list[str]:
        """A line for each pack in training."""
        return [_pack_line(pack) for pack in self._running()]

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.file is not None and (force or now - self._written > FILE_SECONDS):
            self._written = now
            write_json(self.file, {"line": self.line(), "packs": self.pack_lines()})
        if self._live is not None:
            self._live.update(self._table())
        elif force or now - self._printed > PLAIN_SECONDS:
            self._printed = now
            self.console.print("; ".join([self.line(), *self.pack_lines()]), highlight=False, soft_wrap=True)

    def _table(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        if self._stage:
            done = sum(one for one, _ in self._counts.values())
            grid.add_row(ProgressBar(max(self._stage_total, 1), done, width=30), self.line())
            return grid
        grid.add_row(ProgressBar(max(self.total_runs, 1), self.runs_done, width=30), self.line())
        for pack in self._running():
            whole = sum(pack.seconds.values())
            grid.add_row(ProgressBar(max(whole, 1e-9), min(sum(pack.done.values()), whole), width=30), _pack_line(pack))
        return grid


def _tokens_per_second(pack: _Pack) -> float:
    """Tokens that a pack trains on per second, its evaluations included; 0 before it is known."""
    began, before = pack.first
    if pack.step is None or not began or pack.phase not in (Phase.TRAINING, Phase.EVALUATING):
        return 0.0
    return (pack.step.tokens - before) / max(pack.since - began, 1e-9)


def _pack_line(pack: _Pack) -> str:
    runs = len(pack.task.runs)
    what = f"pack {pack.task.number} ({runs} {'run' if runs == 1 else 'runs'})"
    if pack.step is None or pack.phase is Phase.PREPARING:
        return f"{what} preparing"
    doing = "" if pack.phase is Phase.TRAINING else f", {pack.phase}"
    return f"{what} step {pack.step.step} of {pack.step.steps}{doing}"
