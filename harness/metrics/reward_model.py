"""What is measured of a reward model: its scores stand in `chosen_reward` and `rejected_reward`, per pair.

It has no policy: what is a property of log-probs (rankings, zones, displacement, KL) does not apply to it.
"""

from __future__ import annotations

import math

import numpy as np

from harness.metrics.distributions import mean
from harness.metrics.margin_columns import TIE_TOL
from harness.metrics.records import Columns, numbers, size, steps, where
from harness.types import Split


def accuracy(columns: Columns, tie_tol: float = TIE_TOL) -> float:
    """Share of pairs whose first-named response scores higher by more than `tie_tol`; NaN for none or non-finite."""
    gap = numbers(columns, "chosen_reward") - numbers(columns, "rejected_reward")
    return mean((gap > tie_tol).astype(np.float64)) if np.isfinite(gap).all() else math.nan


def true_accuracy(columns: Columns, tie_tol: float = TIE_TOL) -> float:
    """The same against the true labels: of a wrongly labelled pair the response named second is the better one."""
    gap = numbers(columns, "chosen_reward") - numbers(columns, "rejected_reward")
    right = numbers(columns, "clean_label") * gap > tie_tol
    return mean(right.astype(np.float64)) if np.isfinite(gap).all() else math.nan


def reward_metrics(columns: Columns, prefix: str) -> dict[str, float]:
    """Metric points of one split at one step by TRL's names, finite ones only; `prefix` as in `checkpoint_metrics`."""
    chosen, rejected = numbers(columns, "chosen_reward"), numbers(columns, "rejected_reward")
    points = {
        "loss": mean(numbers(columns, "loss")),
        "rewards/chosen": mean(chosen),
        "rewards/rejected": mean(rejected),
        "rewards/margins": mean(chosen - rejected),
        "rewards/accuracies": accuracy(columns),
    }
    return {f"{prefix}{name}": value for name, value in points.items() if math.isfinite(value)}


def validation_accuracy(columns: Columns) -> float:
    """Share of held-out pairs that are ranked as their noisy labels say; pairs without a label count as wrong."""
    gap = numbers(columns, "chosen_reward") - numbers(columns, "rejected_reward")
    return mean((numbers(columns, "validation_label") * gap > 0).astype(np.float64))


def reward_row(examples: Columns, kept: int | None = None) -> dict[str, float | None]:
    """The measured columns of `results.csv` of a reward model, from its whole example table.

    `kept` is the step whose weights were kept (None: the last); all "last" values are those of that step.
    `reward_accuracy` on clean held-out pairs, `ood_reward_accuracy` on the other distribution; on the training probe
    `observed_reward_accuracy` against the labels it was given and `train_reward_accuracy` against the true ones.
    """
    every = steps(examples)
    end = every[-1] if kept is None else kept
    held_out, other = where(examples, end, Split.HELDOUT), where(examples, end, Split.OOD)
    first, last = (where(examples, step, Split.TRAIN_OBSERVED) for step in (every[0], end))
    row = {
        "train_loss_first": mean(numbers(first, "loss")),
        "train_loss_last": mean(numbers(last, "loss")),
        "reward_accuracy": accuracy(held_out),
        "ood_reward_accuracy": accuracy(other) if size(other) else math.nan,
        "observed_reward_accuracy": accuracy(last),
        "train_reward_accuracy": true_accuracy(last),
        "kept_step": float(end),
    }
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
