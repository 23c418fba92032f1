"""A weighted sum of per-pair objectives over the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.objectives.numerics import Number
from harness.objectives.table import OBJECTIVES
from harness.types import LossOutput, PairLogps


def mixture(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta: Number,
    mixture: Sequence[Sequence[tuple[str, Any]]],
) -> LossOutput:
    """sum_i weight_i * loss_i; rewards are the same weighted sum of the components' rewards.

    `mixture` as `resolve` leaves it: one tuple of (name, value) pairs a component, among them `name` and `weight`.
    A component without a `beta` of its own takes the shared one.
    """
    total: LossOutput | None = None
    for component in mixture:
        values = dict(component)
        row, weight = OBJECTIVES[values.pop("name")], values.pop("weight")
        if "beta" in row.hyperparameters:
            values.setdefault("beta", beta)
        part = row.loss(policy, reference, **values)
        scaled = [weight * x for x in (part.loss, part.base_loss, part.chosen_reward, part.rejected_reward)]
        if total is None:
            total = LossOutput(*scaled)
        else:
            now = (total.loss, total.base_loss, total.chosen_reward, total.rejected_reward)
            total = LossOutput(*(x + y for x, y in zip(now, scaled, strict=True)))
    assert total is not None, "resolve refuses an empty mixture"
    return total
