"""Closed-form losses at step 0, where the policy is the reference: (hyperparameters, pair) -> the loss of the pair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.objectives.row import StepZero, StepZeroLoss

LOG2 = math.log(2)


def constant(value: float) -> StepZeroLoss:
    """The same value whatever the pair and the hyperparameters."""
    return lambda _hp, _pair: value


log_two = constant(LOG2)


def softplus(x: float) -> float:
    """log(1 + exp(x))."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _sum_margin(pair: StepZero) -> float:
    return pair.chosen - pair.rejected


def _means(pair: StepZero) -> tuple[float, float]:
    return pair.chosen / max(pair.chosen_len, 1), pair.rejected / max(pair.rejected_len, 1)


def _likelihood(hp: Mapping[str, Any], pair: StepZero) -> float:
    return float(hp["rpo_alpha"]) * -_means(pair)[0]


def dpo(hp: Mapping[str, Any], pair: StepZero) -> float:
    """log 2 and the likelihood term."""
    return LOG2 + _likelihood(hp, pair)


def ipo(hp: Mapping[str, Any], _pair: StepZero) -> float:
    """1 / (4 beta^2)."""
    return float(0.25 / hp["beta"] ** 2)


def sppo(hp: Mapping[str, Any], _pair: StepZero) -> float:
    """1 / (2 beta^2)."""
    return float(0.5 / hp["beta"] ** 2)


def cal_dpo(hp: Mapping[str, Any], pair: StepZero) -> float:
    """log 2 + 1 / (2 beta^2)."""
    return LOG2 + sppo(hp, pair)


def exo(hp: Mapping[str, Any], _pair: StepZero) -> float:
    """-log 2 - log(eps (1 - eps)) / 2."""
    return -LOG2 - 0.5 * math.log(hp["eps"] * (1 - hp["eps"]))


def kto(hp: Mapping[str, Any], _pair: StepZero) -> float:
    """Half the mean weight: sigmoid(0) = 1/2 for every response."""
    return float(hp["desirable_weight"] + hp["undesirable_weight"]) / 4


def ropo(hp: Mapping[str, Any], _pair: StepZero) -> float:
    """4 alpha / (1 + alpha)^2 (log 2 + alpha / 2)."""
    alpha = float(hp["alpha"])
    return 4 * alpha / (1 + alpha) ** 2 * (LOG2 + alpha / 2)


def sympo(hp: Mapping[str, Any], _pair: StepZero) -> float:
    """1/2, or 1 in the unhinged form."""
    return 1.0 if hp["form"] == "unhinged" else 0.5


def rdpo_length(hp: Mapping[str, Any], pair: StepZero) -> float:
    """-log sigmoid(alpha (n_w - n_l))."""
    return softplus(-float(hp["alpha"]) * (pair.chosen_len - pair.rejected_len))


def hypo(hp: Mapping[str, Any], pair: StepZero) -> float:
    """softplus(beta max(0, -delta_ref))."""
    return softplus(float(hp["beta"]) * max(0.0, -_sum_margin(pair)))


def cpo_clip(hp: Mapping[str, Any], pair: StepZero) -> float:
    """softplus(beta max(0, -ln_delta_ref)) and the likelihood term."""
    chosen, rejected = _means(pair)
    return softplus(float(hp["beta"]) * max(0.0, rejected - chosen)) + _likelihood(hp, pair)


def cpo_smooth(hp: Mapping[str, Any], pair: StepZero) -> float:
    """softplus((beta/alpha) softplus(tau (gamma - margin)) / tau) and the likelihood term."""
    chosen, rejected = _means(pair) if hp["reduction"] == "mean" else (pair.chosen, pair.rejected)
    lift = softplus(float(hp["tau"]) * (float(hp["gamma"]) - (chosen - rejected))) / float(hp["tau"])
    return softplus(float(hp["beta"]) / float(hp["alpha"]) * lift) + _likelihood(hp, pair)


def ecpo_released(hp: Mapping[str, Any], pair: StepZero) -> float:
    """softplus(psi), psi < 0, and the likelihood term."""
    chosen, rejected = (min(side, -1e-6) for side in _means(pair))
    return softplus(float(hp["gamma"]) * (1 / chosen + 1 / rejected)) + _likelihood(hp, pair)


def cpo_eq17(hp: Mapping[str, Any], pair: StepZero) -> float:
    """softplus(omega), omega > 0, and the likelihood term."""
    chosen, rejected = (min(-side, 80.0) for side in _means(pair))
    return softplus(float(hp["gamma"]) * (math.exp(chosen) + math.exp(rejected))) + _likelihood(hp, pair)
