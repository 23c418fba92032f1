"""Per-pair objectives that use no reference model, and the likelihood and reward-model rows of the trainer.

a, b: policy log-probs of chosen and rejected; P = exp(mean log-prob a token). Inputs `(..., B)`, at least float32.
"""

from __future__ import annotations

from torch import Tensor

from harness.objectives.numerics import Number, ell, likelihood, per_pair, safe_expm1, token_means
from harness.types import LossOutput, PairLogps

# A response of probability one has infinite odds; 1e-6 nats a token below it is as sure as float32 can tell.
SUREST = -1e-6


def _nll(policy: PairLogps, weight: Number, reduction: str) -> Tensor:
    """weight * NLL(chosen), a token mean or a sum over the sequence."""
    return -weight * policy.chosen if reduction == "sum" else likelihood(policy, weight)


def slic(policy: PairLogps, _reference: PairLogps | None, *, margin: Number, lam: Number, nll: str) -> LossOutput:
    """max(0, margin - a + b) + lam NLL(chosen), the SFT target being the chosen response. SLiC-HF, arXiv 2305.10425."""
    loss = (margin - policy.chosen + policy.rejected).relu() + _nll(policy, lam, nll)
    return per_pair(loss, policy.chosen, policy.rejected)


def contrastive_cpo(policy: PairLogps, _reference: PairLogps | None, *, beta: Number, lam: Number, nll: str) -> LossOutput:
    """ell(beta (a - b)) + lam NLL(chosen). Contrastive preference optimisation, arXiv 2401.08417."""
    loss = ell(beta * (policy.chosen - policy.rejected)) + _nll(policy, lam, nll)
    return per_pair(loss, beta * policy.chosen, beta * policy.rejected)


def simpo(policy: PairLogps, _reference: PairLogps | None, *, beta: Number, gamma: Number) -> LossOutput:
    """ell(beta (a/n_w - b/n_l) - gamma). SimPO, arXiv 2405.14734 eq. 6."""
    chosen, rejected = (beta * side for side in token_means(policy))
    return per_pair(ell(chosen - rejected - gamma), chosen, rejected)


def alphapo(policy: PairLogps, _reference: PairLogps | None, *, beta: Number, gamma: Number, alpha: Number) -> LossOutput:
    """ell(r_w - r_l - gamma), r = beta (1 - P^-alpha)/alpha; alpha -> 0 is simpo. arXiv 2501.03884.

    Exponents are held at MAX_EXPONENT.
    """
    chosen, rejected = (-beta * safe_expm1(-alpha * side) / alpha for side in token_means(policy))
    return per_pair(ell(chosen - rejected - gamma), chosen, rejected)


def orpo(policy: PairLogps, _reference: PairLogps | None, *, lam: Number) -> LossOutput:
    """NLL(chosen) + lam ell(logit P_w - logit P_l), NLL the token mean over the response. ORPO, arXiv 2403.07691."""
    chosen, rejected = token_means(policy)
    loss = lam * ell(_log_odds(chosen) - _log_odds(rejected)) + likelihood(policy, 1.0)
    return per_pair(loss, lam * chosen, lam * rejected)


def _log_odds(mean: Tensor) -> Tensor:
    """log(P / (1 - P)) for P = e^mean; log(1 - P) by expm1, which keeps its digits near P = 1."""
    mean = mean.clamp(max=SUREST)
    return mean - (-mean.expm1()).log()


def nll(policy: PairLogps, _reference: PairLogps | None) -> LossOutput:
    """-a / n_w: token-mean negative log-likelihood of the chosen response. Pretraining and SFT; rejected may be empty."""
    return per_pair(likelihood(policy, 1.0), policy.chosen, policy.rejected)


def bt_reward(policy: PairLogps, _reference: PairLogps | None, *, margin: Number) -> LossOutput:
    """ell(r_w - r_l - margin), where `chosen`, `rejected` hold rewards: the Bradley-Terry reward model's loss."""
    return per_pair(ell(policy.chosen - policy.rejected - margin), policy.chosen, policy.rejected)
