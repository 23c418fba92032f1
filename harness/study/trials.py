"""The trials of a study as an append-only file: asked for, before anything of them is trained, and their outcomes.

`trials.jsonl` with the runs' records is the truth; Optuna's storage and the report derive from it. A lost or damaged
file costs no training: the same trials are asked for again, and their runs are done already. Imports no optuna.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.identity import plain
from harness.storage.journal import JournalDamaged, append_record, read_journal

LEDGER = "trials.jsonl"
RUNNING, COMPLETE, PRUNED, FAIL = ("RUNNING", "COMPLETE", "PRUNED", "FAIL")


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of an arm. `values` and `constraints` are means over seeds, empty unless COMPLETE; `intermediate` is
    the running mean of the first target after each seed; `attrs` is what the sampler or pruner keeps; `reason` says
    why a trial failed or was pruned."""

    arm: str
    number: int
    params: Mapping[str, Any]
    state: str = RUNNING
    values: tuple[float, ...] = ()
    constraints: tuple[float, ...] = ()
    intermediate: tuple[float, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def feasible(self) -> bool:
        """Whether it is complete and keeps every bound."""
        return self.state == COMPLETE and all(excess <= 0 for excess in self.constraints)


class Ledger:
    """The trials of one study by arm, in number order; every change is on disk before it is acted upon."""

    def __init__(self, folder: Path, study_key: str) -> None:
        self.path = folder / LEDGER
        self.arms: dict[str, list[Trial]] = {}
        records = self._read()
        if records and records[0].get("study") != study_key:
            # Another search under the same name: its trials answer other questions, its finished runs may still serve.
            self.path.replace(self.path.with_name(f"{LEDGER}.{str(records[0].get('study'))[:8]}"))
            records = []
        if not records:
            append_record(self.path, {"kind": "study", "study": study_key}, sync=True)
        for record in records[1:]:
            self._take(record)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether the folder holds a study's ledger."""
        return (folder / LEDGER).exists()

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        try:
            return read_journal(self.path)
        except JournalDamaged:
            self.path.replace(self.path.with_name(f"{LEDGER}.corrupt"))
            return []

    def _take(self, record: Mapping[str, Any]) -> None:
        for value in record.get("trials", ()):
            arm = self.arms.setdefault(value["arm"], [])
            tuples = {name: tuple(value[name]) for name in ("values", "constraints", "intermediate")}
            trial = Trial(**{**value, **tuples})
            if trial.number == len(arm):
                arm.append(trial)
            else:
                arm[trial.number] = trial

    def ask(self, trials: Sequence[Trial]) -> None:
        """Record trials as asked for: one record, so a round is asked for whole or not at all."""
        self._note("asked", trials)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Record outcomes, in number order."""
        self._note("told", trials)

    def _note(self, kind: str, trials: Sequence[Trial]) -> None:
        record = {"kind": kind, "trials": [plain(trial) for trial in trials]}
        append_record(self.path, record, sync=True)
        self._take(record)

    def of(self, arm: str) -> tuple[Trial, ...]:
        """Every trial of an arm, in number order."""
        return tuple(self.arms.get(arm, ()))

    def finished(self, arm: str) -> tuple[Trial, ...]:
        """The finished trials of an arm, on which the next round depends."""
        return tuple(trial for trial in self.of(arm) if trial.state != RUNNING)

    def open(self) -> tuple[Trial, ...]:
        """Trials asked for and not finished, of every arm."""
        return tuple(trial for arm in self.arms.values() for trial in arm if trial.state == RUNNING)


def finished(trial: Trial, state: str, **outcome: Any) -> Trial:
    """The trial with its outcome."""
    return replace(trial, state=state, **outcome)


def better(direction: str, one: float, other: float) -> bool:
    """Whether value `one` beats `other`."""
    return one > other if direction == "maximize" else one < other


def front(trials: Iterable[Trial], directions: Sequence[str]) -> tuple[Trial, ...]:
    """Feasible trials that no other one beats in one target without losing in another, by number.

    With one target: the best, of equals the first.
    """
    able = [trial for trial in trials if trial.feasible]
    if len(directions) == 1:
        best = None
        for trial in able:
            if best is None or better(directions[0], trial.values[0], best.values[0]):
                best = trial
        return () if best is None else (best,)
    signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
    scores = {t.number: [s * v for s, v in zip(signs, t.values, strict=True)] for t in able}

    def beaten(own: list[float]) -> bool:
        return any(all(b >= a for a, b in zip(own, other, strict=True)) and other != own for other in scores.values())

    return tuple(trial for trial in able if not beaten(scores[trial.number]))


def winners(trials: Iterable[Trial], directions: Sequence[str]) -> tuple[Trial, ...]:
    """The trials to run again on fresh seeds: the best of one target; of a front, the best in each target."""
    ahead = front(trials, directions)
    if len(directions) == 1:
        return ahead
    chosen: dict[int, Trial] = {}
    for index, direction in enumerate(directions):
        best = None
        for trial in ahead:
            if best is None or better(direction, trial.values[index], best.values[index]):
                best = trial
        if best is not None:
            chosen[best.number] = best
    return tuple(chosen.values())
