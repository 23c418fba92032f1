"""The loss of the reward model that RL objectives learn from, with its row."""

from __future__ import annotations

from typing import Any

from harness.objectives.row import Objective
from harness.objectives.terms import Number, neg_log_sigmoid, per_pair
from harness.types import LossOutput, PairLogps, Parameter


def reward_model(
    policy: PairLogps,
    reference: PairLogps | None,  # noqa: ARG001
    margin: Number,
    center: Number = 0.0,
    shrink: Number = 0.0,
    **_recipe: Any,
) -> LossOutput:
    """-log sigmoid(r_w - r_l - margin) + center (r_w + r_l)^2 + shrink (r_w^2 + r_l^2) / 2, r the scores.

    `policy` holds the model's scores in the place of log-probs. `center` is TRL's `center_rewards_coefficient`: it
    fixes the level that the likelihood leaves free. `shrink` bounds the gaps, which hard labels would drive to
    infinity. `_recipe` is how long and how fast the model is trained, which the loss does not read.
    """
    chosen, rejected = policy.chosen, policy.rejected
    likelihood = neg_log_sigmoid(chosen - rejected - margin)
    loss = likelihood + center * (chosen + rejected).square() + shrink * (chosen.square() + rejected.square()) / 2
    return per_pair(loss, (chosen, rejected))


REWARD_MODEL = Objective(
    "reward_model", reward_model, "pair", "sum", False,
    {
        "margin": Parameter(0.0, low=0, doc="margin asked of the reward gap, reward units"),
        "center": Parameter(0.0, low=0, search=(0, 0.01), doc="weight of (r_w + r_l)^2, which fixes the level"),
        "shrink": Parameter(0.03, low=0, search=(0, 0.1), doc="weight of the mean squared reward"),
        "steps": Parameter(600, kind="int", low=1, high=1_000_000, doc="optimizer steps"),
        "batch_size": Parameter(32, kind="int", low=1, high=65_536, doc="pairs per step"),
        "learning_rate": Parameter(1e-3, low=0, high=10, low_open=True, doc="peak rate"),
        "weight_decay": Parameter(0.01, low=0, high=10, doc="decoupled, of every weight"),
        "stop": Parameter(
            "validation", kind="choice", choices=("validation", "none"),
            doc="validation: the evaluation is kept that ranks most held-out pairs as their noisy labels do",
        ),
    },
    "Bradley-Terry; margin: arXiv 2307.09288", "likelihood of the labels under a scalar head on the reference",
    "levels are free per prompt: compare gaps only; wrong labels become wrong rewards",
)  # fmt: skip


ROWS = (REWARD_MODEL,)
