"""Per-pair objectives that need the chosen and the rejected side apart, not only their difference.

Notation as in `pairwise`: h_w, h_l log-ratios of policy and reference, gain = h_w - h_l, z = beta * gain,
u = e^h. Inputs `(..., B)`, at least float32; hyperparameters numbers or `(K, 1)`.
"""

from __future__ import annotations

import torch

from harness.objectives.numerics import Number, ell, like, per_pair, safe_exp, safe_expm1, shifts
from harness.types import LossOutput, PairLogps


def dpop(policy: PairLogps, reference: PairLogps, *, beta: Number, lam: Number) -> LossOutput:
    """ell(beta [gain - lam max(0, a0 - a)]). DPO-Positive (Smaug), arXiv 2402.13228 eq. 3."""
    chosen, rejected = shifts(policy, reference)
    loss = ell(beta * (chosen - rejected - lam * (-chosen).relu()))
    return per_pair(loss, beta * chosen, beta * rejected)


def nca(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """ell(beta h_w) + ell(-beta h_w)/2 + ell(-beta h_l)/2. Noise contrastive alignment, arXiv 2402.05369."""
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    return per_pair(ell(chosen) + 0.5 * ell(-chosen) + 0.5 * ell(-rejected), chosen, rejected)


def sppo(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """(h_w - 1/(2 beta))^2 + (h_l + 1/(2 beta))^2: hard win probabilities 1 and 0. arXiv 2405.00675."""
    chosen, rejected = shifts(policy, reference)
    loss = (chosen - 0.5 / beta).square() + (rejected + 0.5 / beta).square()
    return per_pair(loss, beta * chosen, beta * rejected)


def cal_dpo(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """ell(gain) + (h_w - 1/(2 beta))^2 + (h_l + 1/(2 beta))^2; the first term has no beta. arXiv 2412.14516."""
    chosen, rejected = shifts(policy, reference)
    calibration = (chosen - 0.5 / beta).square() + (rejected + 0.5 / beta).square()
    return per_pair(ell(chosen - rejected) + calibration, beta * chosen, beta * rejected)


def apo_zero(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """1 - sigma(beta h_w) + sigma(beta h_l): chosen up, rejected down. arXiv 2408.06266 eq. 7."""
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    return per_pair((-chosen).sigmoid() + rejected.sigmoid(), chosen, rejected)


def apo_down(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """sigma(beta h_w) + 1 - sigma(z): chosen down, rejected down more. arXiv 2408.06266 eq. 8."""
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    return per_pair(chosen.sigmoid() + (rejected - chosen).sigmoid(), chosen, rejected)


def dpo_shift(policy: PairLogps, reference: PairLogps, *, beta: Number, f: Number) -> LossOutput:
    """ell(beta h_w - f beta h_l), f in (0, 1]: less push on the rejected side. arXiv 2502.07599."""
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    return per_pair(ell(chosen - f * rejected), chosen, rejected)


def chi_po(policy: PairLogps, reference: PairLogps, *, beta: Number, r_max: Number) -> LossOutput:
    """ell(clip(beta [phi(u_w) - phi(u_l)], +-2 r_max)), phi(u) = u + log u. arXiv 2407.13399.

    The exponent of u is held at MAX_EXPONENT; pairs beyond either bound have no gradient.
    """
    chosen, rejected = (beta * (safe_exp(side) + side) for side in shifts(policy, reference))
    bound = 2 * like(r_max, chosen)
    return per_pair(ell(torch.clamp(chosen - rejected, -bound, bound)), chosen, rejected)


def fdpo_forward_kl(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """ell(beta [f'(u_w) - f'(u_l)]) with f' = -1/u, exponents held at MAX_EXPONENT. f-DPO, arXiv 2309.16240."""
    chosen, rejected = (-beta * safe_exp(-side) for side in shifts(policy, reference))
    return per_pair(ell(chosen - rejected), chosen, rejected)


def fdpo_js(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """ell(beta [f'(u_w) - f'(u_l)]) with f' = log(u / (1 + u)) (log 2 dropped). f-DPO, arXiv 2309.16240."""
    chosen, rejected = (-beta * ell(side) for side in shifts(policy, reference))
    return per_pair(ell(chosen - rejected), chosen, rejected)


def fdpo_alpha(policy: PairLogps, reference: PairLogps, *, beta: Number, alpha: Number) -> LossOutput:
    """ell(beta [f'(u_w) - f'(u_l)]) with f' = (1 - u^-alpha)/alpha: alpha -> 0 is dpo, 1 is fdpo_forward_kl.

    The paper's alpha (arXiv 2309.16240); TRL's coefficient is 1 - alpha. Exponents are held at MAX_EXPONENT.
    """
    chosen, rejected = (-beta * safe_expm1(-alpha * side) / alpha for side in shifts(policy, reference))
    return per_pair(ell(chosen - rejected), chosen, rejected)
