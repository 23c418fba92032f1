"""Which weights of a run stay in its folder, by a named rule: the last ones, the best checkpoint's, or none.

`best` is the first checkpoint that gives the most held-out pairs the higher log-prob of the chosen response. It is
chosen on the pairs that the report measures, so these flatter it; `final` is not chosen at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from harness.inputs.run_inputs import RunInputs
from harness.model_files.location import ModelShape
from harness.models.architecture import Architecture
from harness.models.lane_model import LaneModel
from harness.models.pack import Pack
from harness.models.weights import FILE, WeightsNote, save_weights
from harness.objectives.budget import family
from harness.types import Record, RunSpec

FULL_BYTES = 2**31  # whole models beyond this stay only where the spec asks by name; adapters are always small
CHOOSING = "eval_clean"


def rule(run: RunSpec, architecture: Architecture) -> str:
    """The rule of a run: as its spec says, else `final` for adapters and models of moderate size from a path."""
    if family(run.objective) == "reward" or run.objective.name == "best_of_n":
        return "none"  # no language model is trained
    if run.evaluation.keep:
        return run.evaluation.keep
    source = architecture.source
    if source is None:
        return "none"
    return "final" if source.lora is not None or file_bytes(architecture) <= FULL_BYTES else "none"


def file_bytes(own: Architecture) -> int:
    """About what the weights of a full model take on disk."""
    shape = ModelShape(own.vocab_size, own.hidden_size, own.layers, own.heads, own.intermediate_size)
    return shape.parameters * (2 if own.source is not None and own.source.dtype == "bfloat16" else 4)


@dataclass
class SavedWeights:
    """The best weights so far of each lane whose rule asks for them; `best[lane]` is (score, step, row)."""

    keys: Sequence[str]
    rules: Sequence[str]
    best: dict[int, tuple[float, int, Tensor]] = field(default_factory=dict)

    def see(self, record: Record, pack: Pack, model: LaneModel) -> None:
        """Take note of a record while the model of `pack` still has the weights that it measured."""
        lane = self.keys.index(record.run_key)
        if self.rules[lane] != "best" or record.split != CHOOSING or not record.ids:
            return
        right = np.asarray(record.columns["policy_chosen"]) > np.asarray(record.columns["policy_rejected"])
        score = float(right.mean())
        if lane not in self.best or score > self.best[lane][0]:
            here = [other.key for other in pack.lanes].index(record.run_key)
            self.best[lane] = (score, record.step, model.weights(here))

    def write(self, lane: int, folder: Path, setting: RunInputs, model: LaneModel, steps: int) -> None:
        """Write what the lane's rule keeps into the run's folder."""
        rule = self.rules[lane]
        if rule == "none":
            return
        step, row = self.best[lane][1:] if lane in self.best else (steps, model.weights(lane))
        source = setting.architecture.source
        kind = "lora" if source is not None and source.lora is not None else "full"
        note = WeightsNote(kind, rule, step, setting.tokenizer)
        save_weights(folder / FILE, setting.architecture, row[: _size(setting)], note)


def _size(setting: RunInputs) -> int:
    """Parameters of the language model alone: a value head stands behind them."""
    return len(setting.weights)


def saved_weights(runs: Sequence[RunSpec], keys: Sequence[str], settings: Sequence[RunInputs]) -> SavedWeights:
    """The keeper of a pack."""
    rules = [rule(run, setting.architecture) for run, setting in zip(runs, settings, strict=True)]
    return SavedWeights(tuple(keys), tuple(rules))
