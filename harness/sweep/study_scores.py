"""What a run scored: held-out measures by step and split, from its committed records. Imports no torch, no optuna.

The held-out pairs are cut in two by prompt (a fixed hash of its text, the same in every world): selection sees the
validation half, the report's test half shares no prompt with it. `validation_observed` is the validation half with
labels drawn as the training labels were: the same corruption kind, its own random stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from harness.data import mythworld
from harness.data.corrupt.ledger import orientation
from harness.data.corrupt.steps import apply_spec
from harness.data.corrupt.table import needs
from harness.measure import records
from harness.measure.table import METRICS
from harness.names import stream_seed, uniform
from harness.spec_targets import CLEAN, OBSERVED, OOD, TEST, observed_refusal
from harness.tracking.store import find_run, load_result, read_table
from harness.types import InputError, PreferencePair, RunSpec

DONE = "done"


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of one run: `items` pairs or samples stand behind it; `value` is None where it is not finite."""

    run_key: str
    step: int
    split: str
    measure: str
    value: float | None
    items: int


def in_validation(prompt: str) -> bool:
    """Whether a held-out prompt belongs to the validation half; the other half is for the report."""
    return uniform(0, "validation half", prompt) < 0.5


def held_out_pairs(run: RunSpec) -> tuple[PreferencePair, ...]:
    """The held-out pairs of a run in the clean orientation, as its evaluation took them."""
    if run.world is not None:
        world = mythworld.draw_world(run.seed)
        return tuple(mythworld.preference_pairs(world, "test", run.evaluation.heldout))
    from harness.data.text import read_text  # loads a tokenizer library: only where the data needs it

    assert run.data is not None and run.model is not None
    return tuple(read_text(run.data, run.model, run.seed).heldout[: run.evaluation.heldout])


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out pairs of one replicate: prompt by pair id."""

    run: RunSpec
    pairs: tuple[PreferencePair, ...]

    @cached_property
    def validation(self) -> frozenset[str]:
        """Ids of the validation half."""
        return frozenset(pair.id for pair in self.pairs if in_validation(pair.prompt))

    def half(self, columns: records.Columns, validation: bool) -> dict[str, records.Array]:
        """The rows of one half."""
        return records.select(columns, _among(columns, self.validation) == validation)

    def flipped(self, validation: records.Columns) -> frozenset[str]:
        """Ids of validation pairs whose observed label is wrong; `validation` are their rows at any step.

        Raises InputError where the corruption needs a fact that these pairs lack.
        """
        ids = set(validation["id"].astype(str))
        pairs = [pair for pair in self.pairs if pair.id in ids]
        flips: dict[str, int] = {pair.id: 1 for pair in pairs}
        if self.run.world is not None and self.run.world.labels == "bradley_terry":
            seed = stream_seed(self.run.seed, "validation labels")
            turned = mythworld.bradley_terry_flips(pairs, seed)
            flips = {pair.id: -1 if turn else 1 for pair, turn in zip(pairs, turned, strict=True)}
            pairs = [_swapped(pair) if flips[pair.id] < 0 else pair for pair in pairs]
        spec = self.run.corruption
        if spec.kind != "none":
            facts = _facts(validation, flips) if needs(spec) else None
            _, ledger = apply_spec(spec, pairs, stream_seed(self.run.seed, "validation corruption"), facts)
            for name, label in orientation(ledger).items():
                flips[name] *= label
        return frozenset(name for name, label in flips.items() if label < 0)


def _among(columns: records.Columns, names: frozenset[str]) -> records.Bools:
    return np.array([name in names for name in np.asarray(columns["id"]).astype(str)], dtype=bool)


def _swapped(pair: PreferencePair) -> PreferencePair:
    meta = dict(pair.meta)
    if "score_chosen" in meta and "score_rejected" in meta:
        meta["score_chosen"], meta["score_rejected"] = meta["score_rejected"], meta["score_chosen"]
    margin = None if pair.gold_margin is None else -pair.gold_margin
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, gold_margin=margin, meta=meta)


def _facts(rows: records.Columns, flips: Mapping[str, int]) -> pd.DataFrame:
    """What a corruption may know of each validation pair, as labelled: lengths and reference margin."""
    turned = records.turned(rows, np.array([flips[name] < 0 for name in rows["id"].astype(str)], dtype=bool))
    margin = records.numbers(turned, "reference_chosen") - records.numbers(turned, "reference_rejected")
    lengths = {name: np.asarray(turned[name]) for name in ("chosen_len", "rejected_len")}
    return pd.DataFrame({"id": turned["id"].astype(str), "delta_ref": margin, **lengths})


def observable(run: RunSpec) -> str:
    """Why validation pairs cannot be labelled as the training pairs of `run` are; empty where they can."""
    why = observed_refusal("ranking_accuracy", run.corruption)
    if why:
        return why
    pairs = held_out_pairs(run)
    rows = {"id": np.array([pair.id for pair in pairs], dtype=object)}
    ones = np.ones(len(pairs))
    columns = ("reference_chosen", "reference_rejected", "chosen_len", "rejected_len")
    try:
        HeldOut(run, pairs).flipped({**rows, **dict.fromkeys(columns, ones)})
    except InputError as error:
        return "; ".join(error.problems)
    return ""


class Scorer:
    """Scores of the runs in a folder. Keeps the held-out pairs of each replicate, and what it has read."""

    def __init__(self, folder: Path, measures: Sequence[str], splits: Sequence[str]) -> None:
        self.folder, self.measures, self.splits = folder, tuple(dict.fromkeys(measures)), tuple(splits)
        self._held: dict[int, HeldOut] = {}
        self._flips: dict[int, frozenset[str]] = {}
        self._read: dict[str, tuple[Score, ...]] = {}

    def scores(self, key: str, run: RunSpec) -> tuple[Score, ...]:
        """Every measure of a finished run by step and split; nothing for a run that diverged, failed or is missing."""
        if key not in self._read:
            place = find_run(self.folder, key)
            result = load_result(place) if place is not None else None
            if place is None or result is None or result["status"] != DONE:
                return ()
            self._read[key] = tuple(self._measure(key, run, place))
        return self._read[key]

    def last(self, key: str, run: RunSpec, measure: str, split: str) -> float | None:
        """The value at the last step; None where the run has none, which fails its trial."""
        found = [s for s in self.scores(key, run) if (s.measure, s.split) == (measure, split)]
        return found[-1].value if found else None

    def _measure(self, key: str, run: RunSpec, place: Path) -> Iterable[Score]:
        examples = read_table(place / "examples.parquet")
        held = self._held.setdefault(run.seed, HeldOut(run, held_out_pairs(run)))
        for step in records.steps(examples, "eval_clean"):
            for split, rows in self._rows(held, examples, step):
                for name in self.measures:
                    if "S" not in METRICS[name].splits or "E" in METRICS[name].splits:
                        yield self._score(key, run, step, split, name, rows)
        drawn = place / "samples.parquet"
        sampled = [name for name in self.measures if set(METRICS[name].splits) == {"S"}]
        if sampled and drawn.exists():
            samples = read_table(drawn)
            validation = np.array([in_validation(str(prompt)) for prompt in samples["prompt"]], dtype=bool)
            held = np.asarray(samples["split"] == "eval_clean", dtype=bool)
            for split, mask in ((CLEAN, held & validation), (TEST, held & ~validation), (OOD, ~held)):
                for name in sampled:
                    rows = records.select(samples, mask)
                    yield self._score(key, run, run.training.steps, split, name, rows)

    def _rows(
        self, held: HeldOut, examples: records.Columns, step: int
    ) -> Iterable[tuple[str, dict[str, records.Array]]]:
        rows = records.where(examples, step, "eval_clean")
        validation = held.half(rows, True)
        for split in self.splits:
            if split == CLEAN:
                yield split, validation
            elif split == OBSERVED:
                if held.run.seed not in self._flips:
                    self._flips[held.run.seed] = held.flipped(validation)
                yield split, records.turned(validation, _among(validation, self._flips[held.run.seed]))
            elif split == TEST:
                yield split, held.half(rows, False)
            elif split == OOD:
                yield split, records.where(examples, step, "ood")

    def _score(self, key: str, run: RunSpec, step: int, split: str, name: str, rows: records.Columns) -> Score:
        row = METRICS[name]
        lacking = [column for column in row.needs if column not in rows]
        value = math.nan if lacking else row.compute(rows, beta=run.objective.beta)
        return Score(key, step, split, name, value if math.isfinite(value) else None, records.size(rows))
