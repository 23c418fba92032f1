"""A weighted sum of per-pair objectives that share one policy, one reference and (unless they set it) one beta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from harness.objectives import constrained, pairwise, reference_free, sidewise
from harness.objectives.hyperparameters import SUM_BETA
from harness.objectives.row import Objective
from harness.objectives.terms import Number, log_ratios, per_pair
from harness.types import LossOutput, PairLogps, Parameter

# Rows that can be mixed: a loss for each pair from log-probs alone, and no state.
MIXABLE = {
    row.name: row
    for family in (pairwise, sidewise, constrained, reference_free)
    for row in family.ROWS
    if not row.state and not row.needs
}
# (name, weight, ((hyperparameter, value), ...)) as `harness.objectives.registry.resolve` writes it.
Component: TypeAlias = tuple[str, float, Sequence[tuple[str, Any]]]


def mixture(policy: PairLogps, reference: PairLogps, beta: Number, mixture: Sequence[Component]) -> LossOutput:
    """Sum of weight x loss; the rewards are beta x log-ratio, since those of the components may differ."""
    total = None
    for name, weight, settings in mixture:
        row = MIXABLE[name]
        shared = {"beta": beta} if "beta" in row.hyperparameters else {}
        part = weight * row.loss(policy, reference, **(shared | dict(settings))).loss
        total = part if total is None else total + part
    assert total is not None, "resolve refuses an empty mixture"
    chosen, rejected = log_ratios(policy, reference)
    return per_pair(total, (beta * chosen, beta * rejected))


MIXTURE = Objective(
    "mixture", mixture, "pair", "sum", True,
    {"beta": SUM_BETA, "mixture": Parameter((("dpo", 1.0, ()),), kind="table",
                                            doc="list of {name, weight, hyperparameters}; beta is shared")},
    "MPO, arXiv 2411.10442", "weighted sum of per-pair objectives",
    "weights compare losses of different scale; batch-level and stateful objectives cannot be mixed",
)  # fmt: skip


ROWS = (MIXTURE,)
