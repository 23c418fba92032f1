"""A weighted sum of per-pair objectives that share one policy, one reference and (where they set none) one beta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from harness.objectives.registry import OBJECTIVES
from harness.objectives.terms import Number, log_ratios, per_pair
from harness.types import LossOutput, PairLogps

# (name, weight, ((hyperparameter, value), ...)) as `harness.objectives.registry.resolve` writes it.
Component: TypeAlias = tuple[str, float, Sequence[tuple[str, Any]]]


def mixture(policy: PairLogps, reference: PairLogps, beta: Number, mixture: Sequence[Component]) -> LossOutput:
    """Sum of weight x loss; the rewards are beta h, since the components' own may differ."""
    total = None
    for name, weight, given in mixture:
        row = OBJECTIVES[name]
        own = dict(given)
        if "beta" in row.hyperparameters and "beta" not in own:
            own["beta"] = beta
        part = weight * row.loss(policy, reference, **own).loss
        total = part if total is None else total + part
    assert total is not None, "resolve refuses an empty mixture"
    chosen, rejected = log_ratios(policy, reference)
    return per_pair(total, (beta * chosen, beta * rejected))
