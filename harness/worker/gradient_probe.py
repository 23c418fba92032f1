"""The gradient probe of a pack's runs: `probes.parquet`, asked for by `evaluation.gradient_probe`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from harness.evaluation.probes import gradient_products
from harness.metrics.gradients import gradient_columns
from harness.metrics.targets import uses_token_means
from harness.models.pack import Lane
from harness.rlhf.lanes import RlTraining
from harness.training.loop import Training
from harness.types import Record, Split

# The split whose first pairs are probed: the training probe set as observed, in the order of its hash.
SPLIT = Split.TRAIN_OBSERVED


def gradient_probe(
    run: Training | RlTraining, lanes: Sequence[Lane], count: int, step: int
) -> list[dict[str, np.ndarray]]:
    """Norms, inner products and ids of the first `count` probe pairs of every lane now; empty for a count of 0."""
    if not count:
        return []
    sets = [next(part for part in lane.evals if part.split == SPLIT) for lane in lanes]
    count = min(count, *(len(part.ids) for part in sets))
    rows = torch.stack([part.rows[:count] for part in sets])
    flipped = torch.stack([part.flipped[:count] for part in sets])
    products = gradient_products(run.model, run.pack.corpus, rows, flipped)
    return [
        {
            "step": np.full(count, step, np.int32),
            "split": np.array([SPLIT] * count, dtype=object),
            "id": np.array(part.ids[:count], dtype=object),
            "products": products[lane],
        }
        for lane, part in enumerate(sets)
    ]


def probe_table(
    probes: Sequence[dict[str, np.ndarray]], records: Sequence[Record], lane: Lane
) -> dict[str, np.ndarray]:
    """The rows of `probes.parquet` from a lane's probes and the records of the same steps."""
    per_token = uses_token_means(lane.objective.name, dict(lane.objective.hyperparameters))
    tables = []
    for probe in probes:
        step, n = int(probe["step"][0]), len(probe["id"])
        record = next(record for record in records if record.step == step and record.split == SPLIT)
        pulls, lengths = (
            np.stack([record.columns[name][:n] for name in names], axis=-1)
            for names in (("grad_w", "grad_l"), ("chosen_len", "rejected_len"))
        )
        head = {name: values for name, values in probe.items() if name != "products"}
        tables.append(head | gradient_columns(probe["products"], pulls, lengths, per_token))
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
