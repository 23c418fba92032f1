"""The loss of the reward model that RL objectives learn from, with its row."""

from __future__ import annotations

from typing import Any

from harness.objectives.row import Objective
from harness.objectives.terms import Number, log_ratios, neg_log_sigmoid, per_pair
from harness.types import LossOutput, PairLogps, Parameter


def reward_model(
    policy: PairLogps,
    reference: PairLogps,
    margin: Number,
    center: Number = 0.0,
    shrink: Number = 0.0,
    head: str = "lm",
    per_nat: Number = 1.0,
    **_recipe: Any,
) -> LossOutput:
    """-log sigmoid(r_w - r_l - margin) + center (r_w + r_l)^2 + shrink (r_w^2 + r_l^2) / 2, r the rewards.

    With `head` lm a reward is `per_nat` x log(model / reference) of the response; with scalar it is the score, which
    `policy` holds in the place of a log-prob beside a reference of zeros. `center` is TRL's
    `center_rewards_coefficient`: it fixes the level that the likelihood leaves free. `shrink` bounds the gaps, which
    hard labels would drive to infinity. `_recipe` is how long and how fast the model is trained, which the loss does
    not read.
    """
    chosen, rejected = log_ratios(policy, reference)
    if head == "lm":
        chosen, rejected = per_nat * chosen, per_nat * rejected
    likelihood = neg_log_sigmoid(chosen - rejected - margin)
    loss = likelihood + center * (chosen + rejected).square() + shrink * (chosen.square() + rejected.square()) / 2
    return per_pair(loss, (chosen, rejected))


REWARD_MODEL = Objective(
    "reward_model", reward_model, "pair", "sum", True,
    {
        "head": Parameter(
            "lm", kind="choice", choices=("lm", "scalar"),
            doc="lm: the implicit reward, per_nat x log(model / reference) of the response"
            " | scalar: a new linear head on the last token's hidden state",
        ),
        "per_nat": Parameter(0.1, low=0, low_open=True, doc="head lm: reward per nat of log-ratio, DPO's beta"),
        "margin": Parameter(0.0, low=0, doc="margin asked of the reward gap, reward units"),
        "center": Parameter(0.0, low=0, search=(0, 0.01), doc="weight of (r_w + r_l)^2, which fixes the level"),
        "shrink": Parameter(0.3, low=0, search=(0, 1), doc="weight of the mean squared reward"),
        "steps": Parameter(300, kind="int", low=1, high=1_000_000, doc="optimizer steps"),
        "batch_size": Parameter(32, kind="int", low=1, high=65_536, doc="pairs per step"),
        "learning_rate": Parameter(1e-3, low=0, high=10, low_open=True, doc="peak rate"),
        "weight_decay": Parameter(0.01, low=0, high=10, doc="decoupled, of every weight"),
        "stop": Parameter(
            "validation", kind="choice", choices=("validation", "none"),
            doc="validation: the evaluation is kept that ranks most held-out pairs as their noisy labels do",
        ),
    },
    "Bradley-Terry; margin: arXiv 2307.09288; head lm: arXiv 2305.18290",
    "likelihood of the labels under the implicit reward of a copy of the reference, or under a scalar head on it",
    "levels are free per prompt: compare gaps only; wrong labels become wrong rewards; the implicit reward of answers"
    " unlike the pairs' may be high, which RLHF at a small beta exploits",
)  # fmt: skip


ROWS = (REWARD_MODEL,)
