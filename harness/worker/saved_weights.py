"""Which weights of a run are saved in its folder: the final ones, those of the best evaluation, or none.

`best` is the first evaluation that gives the most held-out pairs the higher log-prob of the chosen response. It is
chosen on the pairs that the report measures, so these flatter it; `final` is not chosen at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from harness.model_files.location import ModelShape
from harness.models.architecture import Architecture
from harness.models.lane_model import LaneModel
from harness.models.pack import Pack
from harness.models.weights import FILE, WeightsNote, save_weights
from harness.objectives.budget import family
from harness.types import Record, RunSpec, Split
from harness.worker.commit import PackRun

FULL_BYTES = 2**31  # larger whole models are saved only where the spec asks by name; adapters are always small
CHOOSING = Split.HELDOUT


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


def file_bytes(model: Architecture) -> int:
    """About what the weights of a full model take on disk."""
    shape = ModelShape(model.vocab_size, model.hidden_size, model.layers, model.heads, model.intermediate_size)
    return shape.parameters * (2 if model.source is not None and model.source.dtype == "bfloat16" else 4)


@dataclass
class BestWeights:
    """The best weights until now of each lane whose rule is `best`, as (score, step, row) by lane."""

    keys: Sequence[str]
    rules: Sequence[str]
    best: dict[int, tuple[float, int, Tensor]] = field(default_factory=dict)

    @classmethod
    def of_pack(cls, runs: Sequence[PackRun]) -> BestWeights:
        """Of a pack that starts."""
        rules = [rule(run.run, run.encoded.inputs.architecture) for run in runs]
        return cls([run.key for run in runs], rules)

    @property
    def wanted(self) -> bool:
        """Whether any run saves its best weights."""
        return "best" in self.rules

    def update(self, record: Record, pack: Pack, model: LaneModel) -> None:
        """Compare with the weights of `model` that the record measured."""
        lane = self.keys.index(record.run_key)
        if self.rules[lane] != "best" or record.split != CHOOSING or not record.ids:
            return
        right = np.asarray(record.columns["policy_chosen"]) > np.asarray(record.columns["policy_rejected"])
        score = float(right.mean())
        if lane not in self.best or score > self.best[lane][0]:
            here = [other.key for other in pack.lanes].index(record.run_key)  # lanes that ended leave the pack
            self.best[lane] = (score, record.step, model.weights(here))

    def save(self, lane: int, run: PackRun, model: LaneModel, steps: int) -> None:
        """Write the weights that the run's rule keeps into its folder."""
        rule, inputs = self.rules[lane], run.encoded.inputs
        if rule == "none":
            return
        step, row = self.best[lane][1:] if lane in self.best else (steps, model.weights(lane))
        source = inputs.architecture.source
        kind = "lora" if source is not None and source.lora is not None else "full"
        note = WeightsNote(kind, rule, step, inputs.tokenizer)
        # A value head comes after the parameters of the language model, and is not saved.
        save_weights(run.folder / FILE, inputs.architecture, row[: len(inputs.weights)], note)
