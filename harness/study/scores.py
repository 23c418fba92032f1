"""What a run scored: held-out measures by step and split, from its committed records. Imports no torch, no optuna.

The held-out pairs are cut in two by a fixed hash of their prompt: selection sees the validation half, the report's
test half shares no prompt with it. `validation_observed` is the validation half under the labels that the run's own
noise gives held-out pairs (column `validation_label`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config.study_targets import CLEAN, DOWNSTREAM, OBSERVED, OOD, TEST, benchmark
from harness.identity import file_sha256
from harness.metrics import records
from harness.metrics.registry import METRICS
from harness.metrics.selection import validation_half
from harness.storage.evaluations import points, read_evaluations
from harness.storage.gold import read_gold, with_gold
from harness.storage.runs import find_run, load_result, read_table, run_status
from harness.types import RunStatus, Split

HELD_OUT = Split.HELDOUT


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of one run: from `items` pairs or samples; `value` is None where it is not finite."""

    run_key: str
    step: int
    split: str
    measure: str
    value: float | None
    items: int


def rows_of(split: str, examples: records.Columns, step: int) -> dict[str, records.Array]:
    """The records of one split at one step, in the orientation of its labels; pairs without a noisy label left out."""
    if split == OOD:
        return records.where(examples, step, Split.OOD)
    held = records.where(examples, step, HELD_OUT)
    if not records.size(held):
        return held
    validation = validation_half(records.column(held, "prompt_id"))
    if split == TEST:
        return records.select(held, ~validation)
    rows = records.select(held, validation)
    if split == CLEAN:
        return rows
    labels = records.numbers(rows, "validation_label")
    return records.select(records.turned(rows, labels < 0), labels != 0)


def samples_of(split: str, samples: records.Columns, examples: records.Columns) -> dict[str, records.Array]:
    """The free-running samples on a split's prompts; those of held-out prompts follow the order of the pairs."""
    if split == OOD:
        return records.where(samples, split=Split.OOD)
    drawn = records.where(samples, split=HELD_OUT)
    first = records.where(examples, records.steps(examples)[0], HELD_OUT)
    each = int(drawn["answer"].max()) + 1 if "answer" in drawn and records.size(drawn) else 1
    asked = records.column(first, "prompt_id")[: records.size(drawn) // each]
    validation = np.repeat(validation_half(asked), each)
    return records.select(drawn, validation if split == CLEAN else ~validation)


class Scorer:
    """Scores of the runs in a folder; keeps what it has read."""

    def __init__(self, folder: Path, measures: Sequence[str], splits: Sequence[str]) -> None:
        self.folder, self.measures, self.splits = folder, tuple(dict.fromkeys(measures)), tuple(splits)
        self._read: dict[str, tuple[Score, ...]] = {}

    def scores(self, key: str, beta: float | None) -> tuple[Score, ...]:
        """Every measure of a finished run by step and split; nothing for a run that diverged, failed or is missing."""
        if key not in self._read:
            place = find_run(self.folder, key)
            result = load_result(place) if place is not None else None
            if place is None or run_status(result) is not RunStatus.DONE:
                return ()
            self._read[key] = tuple(self._measure(key, beta, place))
        return self._read[key]

    def last(self, key: str, beta: float | None, measure: str, split: str) -> float | None:
        """The value at the last step; None where the run has none, which fails its trial."""
        scores = [s for s in self.scores(key, beta) if (s.measure, s.split) == (measure, split)]
        return scores[-1].value if scores else None

    def _measure(self, key: str, beta: float | None, place: Path) -> Iterable[Score]:
        examples = read_table(place / "examples.parquet")
        downstream = [name for name in self.measures if benchmark(name)]
        held_out = [name for name in self.measures if name not in downstream]
        sampled = [name for name in held_out if set(METRICS[name].splits) == {"S"}]
        steps = records.steps(examples, HELD_OUT)
        for step in steps:
            for split in self.splits:
                rows = rows_of(split, examples, step)
                for name in (name for name in held_out if name not in sampled):
                    yield _score(key, step, split, name, rows, beta)
        drawn = place / "samples.parquet"
        if sampled and drawn.exists():
            samples = read_table(drawn)
            if scored := read_gold(place, file_sha256(drawn)):
                samples = with_gold(place, samples, scored[0].name)
            for split in (split for split in self.splits if split != OBSERVED):
                rows = samples_of(split, samples, examples)
                for name in sampled:
                    yield _score(key, steps[-1], split, name, rows, beta)

        known = {name: (value, one.n) for one in read_evaluations(place) for name, value in points(one).items()}
        for name in downstream:
            if name in known:
                value, items = known[name]
                yield Score(key, steps[-1], DOWNSTREAM, name, value if math.isfinite(value) else None, items)


def _score(key: str, step: int, split: str, name: str, rows: records.Columns, beta: float | None) -> Score:
    row = METRICS[name]
    lacking = [column for column in row.needs if column not in rows]
    value = math.nan if lacking else row.compute(rows, beta=beta)
    return Score(key, step, split, name, value if math.isfinite(value) else None, records.size(rows))
