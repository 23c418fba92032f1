"""Losses that need no reference: margins of the policy's log-probs (delta), and the chosen response's likelihood."""

from __future__ import annotations

from harness.objectives.hyperparameters import LAM_NLL, MEAN_BETA, SIMPO_GAMMA, SUM_BETA
from harness.objectives.row import Objective
from harness.objectives.terms import EXPONENT_LIMIT, ONE, Number, chosen_nll, log1mexp, means, neg_log_sigmoid, per_pair
from harness.types import LossOutput, PairLogps, Parameter


def simpo(policy: PairLogps, reference: PairLogps | None, beta: Number, gamma: Number) -> LossOutput:  # noqa: ARG001
    """-log sigmoid(beta delta - gamma), delta in token means."""
    chosen, rejected = (beta * side for side in means(policy))
    return per_pair(neg_log_sigmoid(chosen - rejected - gamma), (chosen, rejected))


SIMPO = Objective(
    "simpo", simpo, "pair", "mean", False, {"beta": MEAN_BETA, "gamma": SIMPO_GAMMA},
    "arXiv 2405.14734", "mean token margin of at least gamma / beta, no reference",
    "nothing holds the policy near the reference; TRL's beta default of 0.1 is far off its range",
)  # fmt: skip


def alphapo(
    policy: PairLogps,
    reference: PairLogps | None,  # noqa: ARG001
    beta: Number,
    gamma: Number,
    alpha: Number,
) -> LossOutput:
    """simpo with the reward r = beta (1 - P^-alpha) / alpha, P the geometric mean token probability."""
    chosen, rejected = (-beta * (-alpha * side).clamp(max=EXPONENT_LIMIT).expm1() / alpha for side in means(policy))
    return per_pair(neg_log_sigmoid(chosen - rejected - gamma), (chosen, rejected))


ALPHAPO = Objective(
    "alphapo", alphapo, "pair", "mean", False,
    {"beta": MEAN_BETA, "gamma": SIMPO_GAMMA,
     "alpha": Parameter(0.25, low=0, low_open=True, search=(0.05, 0.5), doc="bend of the reward; 0 is simpo")},
    "arXiv 2501.03884", "simpo with a reward that bends with probability",
    "exponential for improbable responses (exponents are capped at 80)",
)  # fmt: skip


def orpo(policy: PairLogps, reference: PairLogps | None, lam: Number) -> LossOutput:  # noqa: ARG001
    """Token-mean NLL of the chosen response - lam log sigmoid(log odds ratio of the mean token probabilities)."""
    odds = [side - log1mexp(side) for side in (side.clamp(max=ONE) for side in means(policy))]
    chosen, rejected = means(policy)
    return per_pair(chosen_nll(policy) + lam * neg_log_sigmoid(odds[0] - odds[1]), (lam * chosen, lam * rejected))


ORPO = Objective(
    "orpo", orpo, "pair", "mean", False,
    {"lam": Parameter(0.1, low=0, search=(0.05, 0.5), prior="log", doc="weight of the odds-ratio term")},
    "arXiv 2403.07691", "token-mean NLL of the chosen response and a log odds ratio",
    "it is fine-tuning first: without a reference the NLL moves the policy most",
)  # fmt: skip


def contrastive_cpo(
    policy: PairLogps,
    reference: PairLogps | None,  # noqa: ARG001
    beta: Number,
    lam: Number,
) -> LossOutput:
    """-log sigmoid(beta delta) + lam x token-mean NLL of the chosen response."""
    loss = neg_log_sigmoid(beta * (policy.chosen - policy.rejected)) + lam * chosen_nll(policy)
    return per_pair(loss, (beta * policy.chosen, beta * policy.rejected))


CONTRASTIVE_CPO = Objective(
    "contrastive_cpo", contrastive_cpo, "pair", "sum", False, {"beta": SUM_BETA, "lam": LAM_NLL},
    "arXiv 2401.08417 (TRL's CPOTrainer)", "dpo under a uniform reference, with a token-mean NLL term",
    "favours short responses; nothing but the NLL term holds the policy",
)  # fmt: skip


def slic(policy: PairLogps, reference: PairLogps | None, margin: Number, lam: Number) -> LossOutput:  # noqa: ARG001
    """max(0, margin - delta) - lam log pi(chosen): the likelihood term is summed over tokens, as printed."""
    loss = (margin - (policy.chosen - policy.rejected)).relu() - lam * policy.chosen
    return per_pair(loss, (policy.chosen, policy.rejected))


SLIC = Objective(
    "slic", slic, "pair", "sum", False,
    {"margin": Parameter(1.0, low=0, search=(0.5, 2), doc="margin that delta must reach, nats"),
     "lam": Parameter(0.1, low=0, search=(0, 1), doc="weight of the summed NLL of the chosen response")},
    "arXiv 2305.10425", "hinge on the policy's own margin, with a likelihood term summed over tokens",
    "the chosen response stands for the paper's SFT target",
)  # fmt: skip


def nll(policy: PairLogps, reference: PairLogps | None) -> LossOutput:  # noqa: ARG001
    """Token-mean NLL of the chosen response: pretraining and supervised fine-tuning."""
    return per_pair(chosen_nll(policy), (policy.chosen, policy.rejected))


NLL = Objective(
    "nll", nll, "pair", "mean", False, {}, "maximum likelihood",
    "token-mean likelihood of the chosen response", "ignores the rejected response", tier="internal",
)  # fmt: skip


ROWS = (SIMPO, ALPHAPO, ORPO, CONTRASTIVE_CPO, SLIC, NLL)
