"""Margin losses of Constrained Preference Optimization: ell(z - psi), psi lifts the target of a wrong reference.

Each row names its reduction; delta and delta_ref always share it.
"""

from __future__ import annotations

from torch import Tensor

from harness.objectives.terms import (
    EXPONENT_LIMIT,
    ONE,
    Number,
    chosen_nll,
    log_ratios,
    mean_log_ratios,
    means,
    neg_log_sigmoid,
    per_pair,
)
from harness.types import LossOutput, PairLogps


def _reference_means(policy: PairLogps, reference: PairLogps) -> tuple[Tensor, Tensor]:
    """Reference log-probs per token; the lengths are the policy's, as everywhere."""
    return reference.chosen / policy.chosen_len.clamp(min=1), reference.rejected / policy.rejected_len.clamp(min=1)


def hypo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """ell(beta (delta - max(delta_ref, 0)))."""
    chosen, rejected = log_ratios(policy, reference)
    target = (reference.chosen - reference.rejected).relu()
    return per_pair(
        neg_log_sigmoid(beta * (policy.chosen - policy.rejected - target)), (beta * chosen, beta * rejected)
    )


def cpo_clip(policy: PairLogps, reference: PairLogps, beta: Number, rpo_alpha: Number) -> LossOutput:
    """hypo on token means, plus rpo_alpha times the chosen response's likelihood term."""
    chosen, rejected = mean_log_ratios(policy, reference)
    policy_chosen, policy_rejected = means(policy)
    reference_chosen, reference_rejected = _reference_means(policy, reference)
    target = (reference_chosen - reference_rejected).relu()
    loss = neg_log_sigmoid(beta * (policy_chosen - policy_rejected - target)) + rpo_alpha * chosen_nll(policy)
    return per_pair(loss, (beta * chosen, beta * rejected))


def cpo_smooth(
    policy: PairLogps,
    reference: PairLogps,
    beta: Number,
    gamma: Number,
    tau: Number,
    alpha: Number,
    reduction: str,
    rpo_alpha: Number,
) -> LossOutput:
    """ell(z - (beta/alpha) m), m = softplus(tau (gamma - delta_ref)) / tau, on token means or sums (`reduction`)."""
    if reduction == "mean":
        chosen, rejected = mean_log_ratios(policy, reference)
        reference_chosen, reference_rejected = _reference_means(policy, reference)
    else:
        chosen, rejected = log_ratios(policy, reference)
        reference_chosen, reference_rejected = reference.chosen, reference.rejected
    lift = neg_log_sigmoid(tau * (reference_chosen - reference_rejected - gamma)) / tau
    loss = neg_log_sigmoid(beta * (chosen - rejected) - beta / alpha * lift) + rpo_alpha * chosen_nll(policy)
    return per_pair(loss, (beta * chosen, beta * rejected))


def ecpo_released(
    policy: PairLogps, reference: PairLogps, beta: Number, gamma: Number, rpo_alpha: Number
) -> LossOutput:
    """ell(z - psi) on token means, psi = gamma (1/b_w + 1/b_l) < 0 of mean LOG-probs b, as in the authors' code."""
    chosen, rejected = mean_log_ratios(policy, reference)
    reference_chosen, reference_rejected = (side.clamp(max=ONE) for side in _reference_means(policy, reference))
    psi = gamma * (1 / reference_chosen + 1 / reference_rejected)
    loss = neg_log_sigmoid(beta * (chosen - rejected) - psi) + rpo_alpha * chosen_nll(policy)
    return per_pair(loss, (beta * chosen, beta * rejected))


def cpo_eq17(policy: PairLogps, reference: PairLogps, beta: Number, gamma: Number, rpo_alpha: Number) -> LossOutput:
    """ell(z - omega) on token means, omega = gamma (exp(-b_w) + exp(-b_l)) > 0 of mean log-probs b."""
    chosen, rejected = mean_log_ratios(policy, reference)
    inverse = [(-side).clamp(max=EXPONENT_LIMIT).exp() for side in _reference_means(policy, reference)]
    loss = neg_log_sigmoid(beta * (chosen - rejected) - gamma * (inverse[0] + inverse[1])) + rpo_alpha * chosen_nll(
        policy
    )
    return per_pair(loss, (beta * chosen, beta * rejected))


def cpo_dual(
    policy: PairLogps,
    reference: PairLogps,
    beta: Number,
    margin: Number,
    eta: Number | None,
    state: dict[str, Tensor],
) -> LossOutput:
    """ell(z - multiplier), the pair's multiplier rising by eta (margin - delta) per visit and never below 0.

    `state["multiplier"]` is `(..., B)`. `eta` None means beta / 2: one visit then moves the target halfway to the
    margin, since d delta / d multiplier = 1 / beta at the inner optimum (eta >= 2 beta does not settle).
    """
    chosen, rejected = log_ratios(policy, reference)
    multiplier = state["multiplier"]
    step = beta / 2 if eta is None else eta
    short = margin - (policy.chosen - policy.rejected).detach()
    loss = neg_log_sigmoid(beta * (chosen - rejected) - multiplier)
    moved = {"multiplier": (multiplier + step * short).clamp(min=0)}
    return per_pair(loss, (beta * chosen, beta * rejected), moved)
