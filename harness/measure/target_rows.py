"""Measures that follow from what the objective asks of a pair: target, slack, bridge, pull, clamps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from harness.measure import targets
from harness.measure.distributions import mean
from harness.measure.metric import INF, LENGTHS, LOGPS, Function, Metric, View
from harness.measure.records import Array, Columns

PerPair = Callable[[str, Columns, targets.Hyperparameters], Array | None]


def _of(per_pair: PerPair) -> Function:
    """The mean of a per-pair quantity of the objective; unknown where the objective has none."""

    def average(view: View) -> float:
        values = per_pair(view.objective, view.columns, view.hyperparameters)
        return math.nan if values is None else mean(values.astype(np.float64))

    return average


def _satisfied(objective: str, columns: Columns, hyperparameters: targets.Hyperparameters) -> Array | None:
    distance = targets.slack(objective, columns, hyperparameters)
    return None if distance is None else distance > 0


def rows() -> list[Metric]:
    """In the objective's own reduction: nats, or nats per token for token-mean objectives."""
    both, settings = LOGPS + LENGTHS, ("objective",)

    def row(
        name: str, per_pair: PerPair, unit: str, direction: str, bounds: tuple[float, float], text: str,
        needs: tuple[str, ...] = both,
    ) -> Metric:  # fmt: skip
        return Metric(name, _of(per_pair), unit, direction, *bounds, needs, "OCED", text, settings, beta_neutral=False)

    anything, share = (-INF, INF), (0.0, 1.0)
    return [
        row("target_mean", targets.target, "own", "none", anything,
            "mean margin T that the objective asks of a pair; unknown for objectives without one"),
        row("slack_mean", targets.slack, "own", "none", anything,
            "mean of delta - T: > 0 where the objective considers a pair satisfied; never compared across objectives"),
        row("satisfied", _satisfied, "share", "none", share, "pairs with positive slack"),
        row("bridge_threshold_mean", targets.bridge_threshold, "own", "none", (0.0, INF),
            "mean of log(1 + exp(beta T)): a loss below it means delta > 0; logistic margin losses only"),
        row("bridge_pass_rate", targets.bridge_pass, "share", "up", share,
            "loss below the bridge threshold; equals ranking_accuracy for logistic margin losses",
            (*both, "base_loss")),
        row("pull", targets.pull, "1/nat", "none", anything,
            "mean slope of the loss in delta: how hard pairs still pull; read it relative to step 0",
            (*LENGTHS, "grad_w", "grad_l")),
        row("clamp_rate", targets.clamped, "share", "none", share,
            "pairs with an exponent that the loss holds at 80: > 0 means cut-off gradients"),
    ]  # fmt: skip
