"""Objectives that see the two log-ratios h_w and h_l separately, pair by pair."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.objectives.terms import EXPONENT_LIMIT, Number, capped_exp, log_ratios, neg_log_sigmoid, per_pair
from harness.types import LossOutput, PairLogps


def dpop(policy: PairLogps, reference: PairLogps, beta: Number, lam: Number) -> LossOutput:
    """ell(beta [gain - lam max(0, a0 - a)]): dpo that pays for lowering the chosen response."""
    chosen, rejected = log_ratios(policy, reference)
    return per_pair(
        neg_log_sigmoid(beta * (chosen - rejected - lam * (-chosen).relu())), (beta * chosen, beta * rejected)
    )


def nca(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """ell(r_w) + ell(-r_w)/2 + ell(-r_l)/2 with r = beta h."""
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    return per_pair(
        neg_log_sigmoid(chosen) + 0.5 * neg_log_sigmoid(-chosen) + 0.5 * neg_log_sigmoid(-rejected), (chosen, rejected)
    )


def sppo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """(h_w - 1/(2 beta))^2 + (h_l + 1/(2 beta))^2."""
    chosen, rejected = log_ratios(policy, reference)
    loss = (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2
    return per_pair(loss, (beta * chosen, beta * rejected))


def apo_zero(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """1 - sigmoid(beta h_w) + sigmoid(beta h_l)."""
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    return per_pair((-chosen).sigmoid() + rejected.sigmoid(), (chosen, rejected))


def apo_down(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """sigmoid(beta h_w) + 1 - sigmoid(z)."""
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    return per_pair(chosen.sigmoid() + (rejected - chosen).sigmoid(), (chosen, rejected))


def cal_dpo(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """ell(gain) + (h_w - 1/(2 beta))^2 + (h_l + 1/(2 beta))^2; the first term has no beta."""
    chosen, rejected = log_ratios(policy, reference)
    loss = neg_log_sigmoid(chosen - rejected) + (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2
    return per_pair(loss, (beta * chosen, beta * rejected))


def chi_po(policy: PairLogps, reference: PairLogps, beta: Number, r_max: Number) -> LossOutput:
    """ell(beta [phi(u_w) - phi(u_l)] clipped to +-2 r_max), phi(u) = u + log u, u = exp(h)."""
    chosen, rejected = (beta * (capped_exp(side) + side) for side in log_ratios(policy, reference))
    z = chosen - rejected
    bound = torch.as_tensor(2 * r_max, dtype=z.dtype, device=z.device)
    return per_pair(neg_log_sigmoid(z.clamp(min=-bound, max=bound)), (chosen, rejected))


def dpo_shift(policy: PairLogps, reference: PairLogps, beta: Number, f: Number) -> LossOutput:
    """ell(beta h_w - f beta h_l): the rejected response counts for less, so the chosen one has to rise."""
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    return per_pair(neg_log_sigmoid(chosen - f * rejected), (chosen, rejected))


def _link(scores: tuple[Tensor, Tensor], beta: Number) -> LossOutput:
    """ell(beta [f'(u_w) - f'(u_l)]) of an f-divergence; additive constants of f' cancel."""
    chosen, rejected = scores
    return per_pair(neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


def fdpo_forward_kl(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """f'(u) = -1/u."""
    chosen, rejected = log_ratios(policy, reference)
    return _link((-capped_exp(-chosen), -capped_exp(-rejected)), beta)


def fdpo_js(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """f'(u) = log(u / (1 + u)) = log sigmoid(h)."""
    chosen, rejected = log_ratios(policy, reference)
    return _link((logsigmoid(chosen), logsigmoid(rejected)), beta)


def fdpo_alpha(policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number) -> LossOutput:
    """f'(u) = (1 - u^-alpha) / alpha."""
    chosen, rejected = (-(-alpha * h).clamp(max=EXPONENT_LIMIT).expm1() / alpha for h in log_ratios(policy, reference))
    return _link((chosen, rejected), beta)
