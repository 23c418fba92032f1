"""Rows of family rl: they sample their own responses, so none has a loss of given pairs.

The algorithm of a row stands under its name in `harness/rlhf/registry.py`. Hyperparameters are in units of the reward:
beta is the price of KL in raw reward units unless `reward_scale` divides the reward by the reward model's standard
deviation.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.objectives.row import Objective, Preset, StateField
from harness.types import Parameter


def _beta(default: float) -> Parameter:
    doc = "price of one nat of KL in units of the reward; larger: nearer the reference"
    return Parameter(default, low=0, low_open=True, search=(0.01, 1), prior="log", doc=doc)


def _samples(default: int, least: int) -> Parameter:
    doc = "responses sampled per prompt and iteration"
    return Parameter(default, kind="int", low=least, high=256, search=(max(least, 2), 8), doc=doc)


_REWARD: Mapping[str, Parameter] = {
    "reward": Parameter(
        "model", kind="choice", choices=("model", "gold"), doc="the reward model, or the world's own reward (an oracle)"
    ),
}
_SHAPING: Mapping[str, Parameter] = {
    **_REWARD,
    "reward_scale": Parameter(
        False, kind="bool", doc="divide the reward by its standard deviation on the training set"
    ),
    "reward_clip": Parameter(None, low=0, low_open=True, doc="bound of the scaled reward; none where empty"),
    "missing_eos_penalty": Parameter(0.0, low=0, search=(0, 1), doc="reward taken from a response that does not end"),
    "length_penalty": Parameter(0.0, low=0, search=(0, 0.1), doc="reward taken for every token"),
}
_KL: Mapping[str, Parameter] = {
    "kl_estimator": Parameter("k1", kind="choice", choices=("k1", "k3"), doc="KL estimate that enters the reward"),
    "kl_controller": Parameter(
        "fixed", kind="choice", choices=("fixed", "adaptive", "linear", "cosine"), doc="how beta moves over iterations"
    ),
    "kl_target": Parameter(6.0, low=0, low_open=True, doc="sequence KL the adaptive controller steers to, nats"),
    "kl_gain": Parameter(0.1, low=0, high=1, low_open=True, doc="step of the adaptive controller"),
    "kl_end": Parameter(0.1, low=0, high=10, doc="share of beta at the end of a linear or cosine schedule"),
}
_BUDGET: Mapping[str, Parameter] = {
    "iterations": Parameter(None, kind="int", low=1, doc="rollouts; empty: the training steps"),
    "prompts": Parameter(None, kind="int", low=1, doc="prompts of a rollout; empty: the training batch size"),
    "learning_rate": Parameter(None, low=0, low_open=True, doc="of the policy; empty: that of training"),
}


def _reuse(epochs: int) -> dict[str, Parameter]:
    return {
        "epochs": Parameter(epochs, kind="int", low=1, high=64, search=(1, 4), doc="passes over every rollout"),
        "minibatches": Parameter(1, kind="int", low=1, high=1024, doc="updates of a pass"),
        "clip": Parameter(
            0.2, low=0, high=1, low_open=True, high_open=True, search=(0.1, 0.3), doc="bound of |ratio - 1|"
        ),
        "entropy_coef": Parameter(0.0, low=0, search=(0, 0.01), doc="weight of the entropy bonus"),
    }


def _whiten(default: bool) -> dict[str, Parameter]:
    return {"whiten": Parameter(default, kind="bool", doc="advantages to mean 0 and sd 1; moves the optimum")}


ROWS = (
    Objective(
        "ppo", None, "rl", "sum", True,
        {
            "beta": _beta(0.05), "samples": _samples(4, 1), **_BUDGET, **_SHAPING, **_KL, **_reuse(4), **_whiten(True),
            "gamma": Parameter(1.0, low=0, high=1, search=(0.9, 1), doc="discount a token"),
            "lam": Parameter(0.95, low=0, high=1, search=(0.9, 1), doc="bias-variance trade of the advantages (GAE)"),
            "value_clip": Parameter(0.2, low=0, low_open=True, search=(0.1, 1),
                                    doc="bound of a value's move, reward units"),
            "vf_coef": Parameter(0.1, low=0, low_open=True, search=(0.05, 1), prior="log",
                                 doc="weight of the value loss"),
        },
        "arXiv 1707.06347; for language arXiv 1909.08593", "expected reward less beta KL, by clipped steps on tokens",
        "only as sound as its reward model; needs a value model; whitened advantages change the effective beta",
        presets={"trl": Preset({}, "TRL's PPOConfig: kl_coef 0.05, cliprange 0.2, vf_coef 0.1, lam 0.95, 4 epochs")},
    ),
    Objective(
        "rloo", None, "rl", "sum", True,
        {"beta": _beta(0.05), "samples": _samples(4, 2), **_BUDGET, **_SHAPING, **_KL, **_reuse(1), **_whiten(False)},
        "arXiv 2402.14740", "expected reward less beta KL, each sample against the prompt's other samples",
        "only as sound as its reward model; credit is a whole response's",
        presets={"trl": Preset({"samples": 2}, "TRL's RLOOConfig: beta 0.05, num_generations 2")},
    ),
    Objective(
        "reinforce", None, "rl", "sum", True,
        {
            "beta": _beta(0.05), "samples": _samples(4, 1), **_BUDGET, **_SHAPING, **_KL, **_reuse(1), **_whiten(False),
            "baseline": Parameter("batch", kind="choice", choices=("batch", "running", "none"),
                                  doc="what a response's reward is compared with"),
            "decay": Parameter(0.9, low=0, high=1, high_open=True, search=(0.8, 0.99),
                               doc="memory of a running baseline"),
        },
        "Williams 1992, doi 10.1007/BF00992696", "expected reward less beta KL, each sample against one baseline",
        "the baseline ignores the prompt: prompts of different difficulty are noise",
        state={"baseline": StateField("lane", 0.0)},
    ),
    Objective(
        "grpo", None, "rl", "sum", True,
        {
            "beta": _beta(0.04), "samples": _samples(4, 2), **_BUDGET, **_SHAPING, **_KL, **_reuse(1),
            "kl_in": Parameter("loss", kind="choice", choices=("loss", "reward"),
                               doc="k3 added to the loss, or the KL price taken from the reward"),
            "scale_rewards": Parameter("group", kind="choice", choices=("group", "none"),
                                       doc="divide by the group's sd, or not (Dr. GRPO)"),
            "average": Parameter("token", kind="choice", choices=("token", "sequence", "constant"),
                                 doc="over all tokens (DAPO), per response (the paper), over the limit (Dr. GRPO)"),
        },
        "arXiv 2402.03300; Dr. GRPO: arXiv 2503.20783", "reward relative to the prompt's group, with the KL as a loss",
        "k3 as a loss is the KL the other way round, and the group's sd takes rewards out of their units: neither has"
        " the optimum of beta (kl_in: reward, scale_rewards: none has); averages by length favour long wrong answers",
        presets={"paper": Preset({"samples": 64, "average": "sequence"}, "arXiv 2402.03300: KL coefficient 0.04")},
    ),
    Objective(
        "best_of_n", None, "rl", "sum", True,
        {
            **_REWARD,
            "n": Parameter(4, kind="int", low=1, high=1024, search=(2, 64), prior="log", doc="samples to choose from"),
            "estimate": Parameter(32, kind="int", low=1, high=65_536,
                                  doc="reference samples per prompt, to estimate its log-probs"),
        },
        "KL bound: arXiv 2401.01879", "the best of n samples of the reference by reward, without training",
        "pays n samples for every answer; its KL grows as log n, so it stays near the reference",
    ),
    Objective(
        "online_dpo", None, "rl", "sum", True,
        {
            "beta": _beta(0.1), "samples": _samples(4, 2), **_BUDGET, **_SHAPING,
            "pairing": Parameter("best_worst", kind="choice", choices=("best_worst", "adjacent"),
                                 doc="which of a prompt's samples are compared"),
        },
        "arXiv 2402.04792", "dpo on pairs of the policy's own samples, labelled by the reward",
        "labels are hard: the size of a reward gap is lost; equal rewards teach nothing",
    ),
    Objective(
        "constrained_rlhf", None, "rl", "sum", True,
        {
            "beta": _beta(0.05), "samples": _samples(4, 2), **_BUDGET, **_SHAPING, **_KL, **_reuse(1), **_whiten(False),
            "margin": Parameter(0.0, low=0, search=(0, 1), doc="m: every training pair is asked for delta >= m, nats"),
            "eta": Parameter(None, low=0, low_open=True, doc="dual step; empty: beta/2"),
            "pairs": Parameter(64, kind="int", low=1, high=65_536, doc="training pairs per rollout that must keep it"),
        },
        "KKT form of arXiv 2605.20834", "expected reward less beta KL under pi_w >= e^m pi_l on the training pairs",
        "wrong labels become wrong constraints; a short run overshoots: it holds delta >= m at more KL than it needs",
        state={"multiplier": StateField("pair", 0.0)},
    ),
)  # fmt: skip
