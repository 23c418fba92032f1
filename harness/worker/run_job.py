"""One run of a pack with everything that its files need, and what is measured of it by its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.inputs.encoded import EncodedInputs
from harness.metrics.geometry import checkpoint_metrics
from harness.metrics.results import results_row
from harness.metrics.reward_model import reward_metrics, reward_row
from harness.models.pack import Lane
from harness.objectives.budget import family
from harness.rlhf.best_of_n import kl_bound
from harness.storage.journal import Journal
from harness.types import Record, RunSpec
from harness.worker.datasets import TrainingSet


@dataclass(frozen=True, eq=False)
class PackRun:
    """One lane with everything that its files need."""

    key: str
    run: RunSpec
    prepared: EncodedInputs
    data: TrainingSet
    lane: Lane
    columns: Mapping[str, np.ndarray]
    folder: Path
    journal: Journal
    records: list[Record] = field(default_factory=list)

    @property
    def knobs(self) -> dict[str, Any]:
        """The objective's hyperparameters by name."""
        return dict(self.run.objective.hyperparameters)

    @property
    def scores(self) -> bool:
        """Whether the run is a reward model, whose records hold scores and no log-probs."""
        return family(self.run.objective) == "reward"

    def points(self, columns: Mapping[str, Any], prefix: str) -> dict[str, float]:
        """The metric points of one split at one step."""
        if self.scores:
            return reward_metrics(columns, prefix)
        objective = self.run.objective
        if family(objective) == "rl":  # no loss of given pairs that could pull at them
            return checkpoint_metrics(columns, prefix, self.gold_beta)
        return checkpoint_metrics(columns, prefix, objective.beta, objective=objective.name, hyperparameters=self.knobs)

    @property
    def gold_beta(self) -> float | None:
        """Beta of an RL run where it is a price in units of the true reward, so that theory can speak of it."""
        own = self.knobs
        return self.run.objective.beta if own["reward"] == "gold" and not own.get("reward_scale") else None

    def results(self, examples: Mapping[str, Any], samples: Mapping[str, Any] | None) -> dict[str, float | None]:
        """The measured columns of `results.csv`."""
        if self.scores:
            return reward_row(examples)
        bound = {"kl_bound": kl_bound(self.knobs["n"])} if self.run.objective.name == "best_of_n" else {}
        return results_row(examples, samples, self.run.objective.beta) | bound

    def all_columns(self, record: Record) -> dict[str, Any]:
        """A record's columns with the fixed ones of its split; of a reward model without its stand-in log-probs."""
        first = 0
        for part in self.lane.evals:
            if part.split == record.split:
                break
            first += len(part.ids)
        rows = slice(first, first + len(record.ids))
        own = {n: v for n, v in record.columns.items() if not (self.scores and n.startswith(("policy_", "reference_")))}
        return {**own, **{name: values[rows] for name, values in self.columns.items()}}
