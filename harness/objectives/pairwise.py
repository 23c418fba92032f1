"""Objectives of the reference-corrected margin z = beta (delta - delta_ref) alone, pair by pair."""

from __future__ import annotations

import torch

from harness.objectives.terms import Number, chosen_nll, log_of, log_ratios, mean_log_ratios, neg_log_sigmoid, per_pair
from harness.types import LossOutput, PairLogps


def dpo(policy: PairLogps, reference: PairLogps, beta: Number, rpo_alpha: Number) -> LossOutput:
    """-log sigmoid(z), plus rpo_alpha times the chosen response's likelihood term."""
    chosen, rejected = log_ratios(policy, reference)
    loss = neg_log_sigmoid(beta * (chosen - rejected)) + rpo_alpha * chosen_nll(policy)
    return per_pair(loss, (beta * chosen, beta * rejected))


def cdpo(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """(1 - eps) ell(z) + eps ell(-z): cross-entropy with the label 1 - eps."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    return per_pair((1 - eps) * neg_log_sigmoid(z) + eps * neg_log_sigmoid(-z), (beta * chosen, beta * rejected))


def robust_dpo(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """[(1 - eps) ell(z) - eps ell(-z)] / (1 - 2 eps): unbiased for dpo on clean labels, unbounded below."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    loss = ((1 - eps) * neg_log_sigmoid(z) - eps * neg_log_sigmoid(-z)) / (1 - 2 * eps)
    return per_pair(loss, (beta * chosen, beta * rejected))


def ipo(policy: PairLogps, reference: PairLogps, beta: Number, length_average: bool) -> LossOutput:
    """(gain - 1/(2 beta))^2, gain in nats per sequence or, with `length_average`, per token."""
    chosen, rejected = (mean_log_ratios if length_average else log_ratios)(policy, reference)
    return per_pair((chosen - rejected - 0.5 / beta) ** 2, (beta * chosen, beta * rejected))


def hinge(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """max(0, 1 - z)."""
    chosen, rejected = log_ratios(policy, reference)
    return per_pair((1 - beta * (chosen - rejected)).relu(), (beta * chosen, beta * rejected))


def exo(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """KL of (sigmoid(z), sigmoid(-z)) to (1 - eps, eps)."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    right = z.sigmoid() * (-neg_log_sigmoid(z) - log_of(1 - eps, z))
    wrong = (-z).sigmoid() * (-neg_log_sigmoid(-z) - log_of(eps, z))
    return per_pair(right + wrong, (beta * chosen, beta * rejected))


def discopop(policy: PairLogps, reference: PairLogps, beta: Number, tau: Number) -> LossOutput:
    """(1 - m) ell(z) + m exp(-z) with m = sigmoid(z / tau)."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    # m exp(-z) in one exponent: apart, its factors are 0 and infinity at very negative z.
    loss = (-z / tau).sigmoid() * neg_log_sigmoid(z) + torch.exp(-neg_log_sigmoid(z / tau) - z)
    return per_pair(loss, (beta * chosen, beta * rejected))


def rdpo_length(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """ell(z + alpha (n_w - n_l)): a chosen response that is longer counts as partly won already."""
    chosen, rejected = log_ratios(policy, reference)
    excess = policy.chosen_len - policy.rejected_len
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected) + alpha * excess), (beta * chosen, beta * rejected))


def ln_dpo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """dpo on token means."""
    chosen, rejected = mean_log_ratios(policy, reference)
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


def sympo(policy: PairLogps, reference: PairLogps, beta: Number, form: str) -> LossOutput:
    """A loss with loss(z) + loss(-z) constant: `sigmoid` sigmoid(-z), `ramp` (1 - z)/2 in [0, 1], `unhinged` 1 - z."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    if form == "sigmoid":
        loss = (-z).sigmoid()
    elif form == "ramp":
        loss = ((1 - z) / 2).clamp(min=0, max=1)
    else:
        loss = 1 - z
    return per_pair(loss, (beta * chosen, beta * rejected))


def ropo(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """4 alpha / (1 + alpha)^2 [ell(z) + alpha sigmoid(-z)]: the gradient weight peaks at 1 and falls for z << 0."""
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    loss = 4 * alpha / (1 + alpha) ** 2 * (neg_log_sigmoid(z) + alpha * (-z).sigmoid())
    return per_pair(loss, (beta * chosen, beta * rejected))


def dpo_pro(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number, rho: Number) -> LossOutput:
    """Worst case of q~ ell(z) + (1 - q~) ell(-z) over (q~ - q)^2 <= rho q (1 - q), q~ in [0, 1], with q = 1 - eps.

    ell(-z) - ell(z) = z, so the worst q~ lies at the end of the interval against the sign of z.
    """
    chosen, rejected = log_ratios(policy, reference)
    z = beta * (chosen - rejected)
    radius = torch.as_tensor(rho * eps * (1 - eps), dtype=z.dtype, device=z.device).sqrt()
    room = torch.where(z < 0, eps + torch.zeros_like(z), 1 - eps + torch.zeros_like(z))
    loss = (1 - eps) * neg_log_sigmoid(z) + eps * neg_log_sigmoid(-z) + torch.minimum(radius, room) * z.abs()
    return per_pair(loss, (beta * chosen, beta * rejected))
