"""Margins, gradients and rates of one checkpoint, gathered as the measures that a run stores of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.metrics.distributions import mean
from harness.metrics.margin_columns import TIE_TOL
from harness.metrics.records import Columns, column, numbers
from harness.metrics.registry import METRICS

# On held-out clean pairs, under their own names: what a chart over steps is looked at for. Everything else that
# `METRICS` knows follows from the same stored records.
HELD_OUT = (
    "ranking_accuracy", "reward_accuracy", "ref_accuracy", "undesirable_zone", "zone_z1", "zone_z2", "zone_z4",
    "tie_rate_delta", "tie_rate_gain", "rescued", "broken", "chosen_displacement", "rejected_displacement",
    "disp_rate", "both_down", "auc", "ln_ranking_accuracy",
)  # fmt: skip
MEANS = ("delta", "delta_ref", "gain")
TRAINING = ("ranking_accuracy", "reward_accuracy", "undesirable_zone")
OTHER = ("ranking_accuracy", "reward_accuracy", "ref_accuracy", "undesirable_zone")


def _trl(columns: Columns, beta: float | None, tie_tol: float) -> dict[str, float]:
    """TRL's seven names (`loss` where pairs have one), from what the objective itself calls its rewards.

    A reward margin counts as right beyond beta * tie_tol (TRL: beyond 0), so that rounding is no accuracy at step 0.
    """
    chosen, rejected = numbers(columns, "chosen_reward"), numbers(columns, "rejected_reward")
    with np.errstate(invalid="ignore"):
        margin = chosen - rejected
    right = np.where(np.isnan(margin), np.nan, margin > tie_tol * (1.0 if beta is None else beta))
    # A policy learnt by reinforcement has no loss of given pairs.
    loss = {"loss": mean(numbers(columns, "loss"))} if "loss" in columns else {}
    return loss | {
        "rewards/chosen": mean(chosen),
        "rewards/rejected": mean(rejected),
        "rewards/margins": mean(margin),
        "rewards/accuracies": mean(right),
        "logps/chosen": mean(numbers(columns, "policy_chosen")),
        "logps/rejected": mean(numbers(columns, "policy_rejected")),
    }


def _geometry(columns: Columns, prefix: str, beta: float | None, tie_tol: float) -> dict[str, float]:
    def compute(name: str) -> float:
        return METRICS[name].compute(columns, beta=beta, tie_tol=tie_tol)

    if prefix == "ood_":
        return {f"ood_{name}": compute(name) for name in OTHER}
    if prefix == "":
        points = {f"train_{name}": compute(name) for name in TRAINING}
        if (column(columns, "clean_label") < 0).any():
            names = ("memorised_flip_rate", "flip_auroc", "clean_ranking_accuracy", "observed_clean_gap")
            points |= {f"train_{name}": compute(name) for name in names}
        return points
    points = {name: compute(name) for name in HELD_OUT} | {name: compute(f"{name}_mean") for name in MEANS}
    if beta is not None and not np.isnan(numbers(columns, "gold_margin")).all():
        points["violation_rate"] = compute("violation_rate")
    return points


def constraint_metrics(columns: Columns, margin: float) -> dict[str, float]:
    """How the constraint delta >= `margin` fares on the training probe: a dual objective's observables.

    Mean `multiplier`, `violation` (mean of max(0, margin - delta), nats), `feasible` (share with delta >= margin).
    """
    delta = numbers(columns, "policy_chosen") - numbers(columns, "policy_rejected")
    return {
        "geometry/train_multiplier": mean(numbers(columns, "multiplier")),
        "geometry/train_violation": mean(np.maximum(0.0, margin - delta)),
        "geometry/train_feasible": mean((delta >= margin).astype(float)),
    }


def checkpoint_metrics(
    columns: Columns,
    split_prefix: str,
    beta: float | None,
    tie_tol: float = TIE_TOL,
    objective: str | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Metric points of one split at one step, by MLflow name; every value is finite.

    `split_prefix` says which split the rows are: "" the training probe set with observed labels, "eval_" held-out
    clean pairs, "ood_" another distribution. TRL's names stand for "" and "eval_" (with that prefix), ours under
    `geometry/`: plain for held-out pairs, `train_` and `ood_` before the name else; `pull` and `train_pull` where the
    objective is given. Points without a finite value are left out and counted in `geometry/<train_ | ood_>nonfinite`,
    which stands only where there are any.
    """
    if split_prefix not in ("", "eval_", "ood_"):
        raise ValueError(f"split_prefix must be '', 'eval_' or 'ood_', got {split_prefix!r}")
    points = {f"geometry/{name}": v for name, v in _geometry(columns, split_prefix, beta, tie_tol).items()}
    if split_prefix != "ood_" and objective is not None:
        name = "geometry/pull" if split_prefix else "geometry/train_pull"
        points[name] = METRICS["pull"].compute(columns, objective=objective, hyperparameters=hyperparameters)
    if split_prefix != "ood_":
        points |= {f"{split_prefix}{name}": value for name, value in _trl(columns, beta, tie_tol).items()}
    finite = {name: value for name, value in points.items() if math.isfinite(value)}
    if len(finite) < len(points):
        owner = {"": "train_", "eval_": "", "ood_": "ood_"}[split_prefix]
        finite[f"geometry/{owner}nonfinite"] = float(len(points) - len(finite))
    return finite
