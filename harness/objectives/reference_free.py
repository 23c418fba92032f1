"""Losses that need no reference: margins of the policy's log-probs (delta), and the chosen response's likelihood."""

from __future__ import annotations

from harness.objectives.hyperparameters import GAMMA_RATIO, LAM_NLL, MEAN_BETA, OURS, SUM_BETA
from harness.objectives.row import Objective, Preset
from harness.objectives.terms import EXPONENT_LIMIT, ONE, Number, chosen_nll, log1mexp, means, neg_log_sigmoid, per_pair
from harness.types import LossOutput, PairLogps, Parameter

_README = "README of princeton-nlp/SimPO"
_SIMPO = {
    "paper": Preset({}, f"{_README}: Llama3-Base, and where to start"),
    "mistral_base": Preset({"beta": 2.0, "gamma_ratio": 0.8}, f"{_README}: Mistral-Base"),
    "mistral_instruct": Preset({"beta": 2.5, "gamma_ratio": 0.1}, f"{_README}: Mistral-Instruct"),
    "llama3_instruct": Preset({"beta": 2.5, "gamma_ratio": 0.55}, f"{_README}: Llama3-Instruct"),
    "llama3_instruct_v2": Preset({"beta": 10.0, "gamma_ratio": 0.3}, "SimPO's llama-3-8b-instruct-simpo-v2.yaml"),
    "gemma2": Preset({"beta": 10.0, "gamma_ratio": 0.5}, "SimPO's gemma-2-9b-it-simpo.yaml"),
    "trl": Preset({"beta": 0.1, "gamma_ratio": 5.0}, "TRL's CPOConfig: beta 0.1, simpo_gamma 0.5 (cpo_alpha 0)"),
}


def simpo(policy: PairLogps, reference: PairLogps | None, beta: Number, gamma_ratio: Number) -> LossOutput:  # noqa: ARG001
    """-log sigmoid(beta delta - gamma), gamma = gamma_ratio beta, delta in token means."""
    chosen, rejected = (beta * side for side in means(policy))
    return per_pair(neg_log_sigmoid(chosen - rejected - gamma_ratio * beta), (chosen, rejected))


SIMPO = Objective(
    "simpo", simpo, "pair", "mean", False, {"beta": MEAN_BETA, "gamma_ratio": GAMMA_RATIO},
    "arXiv 2405.14734", "mean token margin of at least gamma_ratio, no reference",
    "nothing holds the policy near the reference; TRL's beta default of 0.1 is far off its range",
    presets=_SIMPO, ratios={"gamma": "gamma_ratio"},
)  # fmt: skip


def alphapo(
    policy: PairLogps,
    reference: PairLogps | None,  # noqa: ARG001
    beta: Number,
    gamma_ratio: Number,
    alpha: Number,
) -> LossOutput:
    """simpo with the reward r = beta (1 - P^-alpha) / alpha, P the geometric mean token probability."""
    chosen, rejected = (-beta * (-alpha * side).clamp(max=EXPONENT_LIMIT).expm1() / alpha for side in means(policy))
    return per_pair(neg_log_sigmoid(chosen - rejected - gamma_ratio * beta), (chosen, rejected))


ALPHAPO = Objective(
    "alphapo", alphapo, "pair", "mean", False,
    {"beta": MEAN_BETA, "gamma_ratio": GAMMA_RATIO,
     "alpha": Parameter(0.25, low=0, low_open=True, search=(0.05, 0.5), doc="bend of the reward; 0 is simpo",
                        source="arXiv 2501.03884; range chosen here")},
    "arXiv 2501.03884", "simpo with a reward that bends with probability",
    "exponential for improbable responses (exponents are capped at 80)",
    presets={"paper": Preset({}, "alpha: arXiv 2501.03884; beta and gamma_ratio: simpo's `paper`")},
    ratios={"gamma": "gamma_ratio"},
)  # fmt: skip


def orpo(policy: PairLogps, reference: PairLogps | None, lam: Number) -> LossOutput:  # noqa: ARG001
    """Token-mean NLL of the chosen response - lam log sigmoid(log odds ratio of the mean token probabilities)."""
    odds = [side - log1mexp(side) for side in (side.clamp(max=ONE) for side in means(policy))]
    chosen, rejected = means(policy)
    return per_pair(chosen_nll(policy) + lam * neg_log_sigmoid(odds[0] - odds[1]), (lam * chosen, lam * rejected))


ORPO = Objective(
    "orpo", orpo, "pair", "mean", False,
    {"lam": Parameter(0.1, low=0, search=(0.05, 0.5), prior="log", doc="weight of the odds-ratio term",
                      source="arXiv 2403.07691, TRL's beta; range chosen here")},
    "arXiv 2403.07691", "token-mean NLL of the chosen response and a log odds ratio",
    "it is fine-tuning first: without a reference the NLL moves the policy most",
    presets={"paper": Preset({}, "arXiv 2403.07691"), "trl": Preset({}, "TRL's ORPOConfig: beta 0.1")},
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
    presets={"paper": Preset({}, "arXiv 2401.08417"), "trl": Preset({}, "TRL's CPOConfig: beta 0.1, cpo_alpha 1")},
)  # fmt: skip


def slic(policy: PairLogps, reference: PairLogps | None, margin: Number, lam: Number) -> LossOutput:  # noqa: ARG001
    """max(0, margin - delta) - lam log pi(chosen): the likelihood term is summed over tokens, as printed."""
    loss = (margin - (policy.chosen - policy.rejected)).relu() - lam * policy.chosen
    return per_pair(loss, (policy.chosen, policy.rejected))


SLIC = Objective(
    "slic", slic, "pair", "sum", False,
    {"margin": Parameter(1.0, low=0, search=(0.5, 2), doc="margin that delta must reach, nats",
                         source=OURS),
     "lam": Parameter(0.1, low=0, search=(0, 1), doc="weight of the summed NLL of the chosen response",
                      source=OURS)},
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
