"""An objective: the hinge of L2 support vector machines on the log-ratio margin."""

from __future__ import annotations

from harness.objectives.row import Objective
from harness.types import LossOutput, PairLogps, Parameter


def squared_hinge(policy: PairLogps, reference: PairLogps, beta: float) -> LossOutput:
    """max(0, 1 - beta x margin)^2 for each pair; beta is a number, or a column of one per run of a pack."""
    chosen, rejected = policy.chosen - reference.chosen, policy.rejected - reference.rejected
    loss = (1 - beta * (chosen - rejected)).relu() ** 2
    return LossOutput(loss, loss, beta * chosen, beta * rejected)


SQUARED_HINGE = Objective(
    name="squared_hinge",
    function=squared_hinge,
    family="pair",
    reduction="sum",
    needs_reference=True,
    hyperparameters={
        "beta": Parameter(0.1, low=0, low_open=True, search=(0.01, 1.0), prior="log", doc="1 over the margin asked for")
    },
    citation="L2 support vector machines, doi 10.1007/BF00994018",
    summary="max(0, 1 - z)^2: a hinge whose gradient fades",
    breaks="quadratic in a wrong label: one flipped pair pulls harder than many right ones",
    step0=lambda _hyperparameters, _pair: 1.0,
)
