"""Per-pair objectives that see a pair only through its gain over the reference (and, for one, its lengths).

Notation of every function: h_w, h_l = log-ratio of policy and reference on chosen and rejected, gain = h_w - h_l,
z = beta * gain, ell(u) = -log sigmoid(u). Inputs `(..., B)`, at least float32; hyperparameters numbers or `(K, 1)`.
"""

from __future__ import annotations

import torch

from harness.objectives.numerics import Number, ell, like, likelihood, mean_shifts, per_pair, shifts
from harness.types import LossOutput, PairLogps


def dpo(policy: PairLogps, reference: PairLogps, *, beta: Number, rpo_alpha: Number) -> LossOutput:
    """ell(z) + rpo_alpha * NLL(chosen). DPO, arXiv 2305.18290 eq. 7; the SFT term as in 2404.19733 and 2405.16436."""
    chosen, rejected = shifts(policy, reference)
    loss = ell(beta * (chosen - rejected)) + likelihood(policy, rpo_alpha)
    return per_pair(loss, beta * chosen, beta * rejected)


def cdpo(policy: PairLogps, reference: PairLogps, *, beta: Number, eps: Number) -> LossOutput:
    """(1 - eps) ell(z) + eps ell(-z). Conservative DPO, E. Mitchell's note (ericmitchell.ai/cdpo.pdf)."""
    chosen, rejected = shifts(policy, reference)
    z = beta * (chosen - rejected)
    return per_pair((1 - eps) * ell(z) + eps * ell(-z), beta * chosen, beta * rejected)


def robust_dpo(policy: PairLogps, reference: PairLogps, *, beta: Number, eps: Number) -> LossOutput:
    """[(1 - eps) ell(z) - eps ell(-z)] / (1 - 2 eps), unbiased under flips at rate eps. arXiv 2403.00409."""
    chosen, rejected = shifts(policy, reference)
    z = beta * (chosen - rejected)
    loss = ((1 - eps) * ell(z) - eps * ell(-z)) / (1 - 2 * eps)
    return per_pair(loss, beta * chosen, beta * rejected)


def ipo(policy: PairLogps, reference: PairLogps, *, beta: Number, length_average: bool) -> LossOutput:
    """(gain - 1/(2 tau))^2 with tau = `beta`; with `length_average` the gain of token means. arXiv 2310.12036 eq. 17."""
    chosen, rejected = mean_shifts(policy, reference) if length_average else shifts(policy, reference)
    loss = (chosen - rejected - 0.5 / beta).square()
    return per_pair(loss, beta * chosen, beta * rejected)


def hinge(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """max(0, 1 - z). RSO's form of SLiC, arXiv 2309.06657."""
    chosen, rejected = shifts(policy, reference)
    return per_pair((1 - beta * (chosen - rejected)).relu(), beta * chosen, beta * rejected)


def exo(policy: PairLogps, reference: PairLogps, *, beta: Number, eps: Number) -> LossOutput:
    """KL((sigma(z), sigma(-z)) || (1 - eps, eps)), the reverse KL to a smoothed label. arXiv 2402.00856 eq. 16."""
    chosen, rejected = shifts(policy, reference)
    z = beta * (chosen - rejected)
    smooth = like(eps, z)
    right = z.sigmoid() * (-ell(z) - torch.log1p(-smooth))
    wrong = (-z).sigmoid() * (-ell(-z) - torch.log(smooth))
    return per_pair(right + wrong, beta * chosen, beta * rejected)


def discopop(policy: PairLogps, reference: PairLogps, *, beta: Number, tau: Number) -> LossOutput:
    """(1 - m) ell(z) + m e^(-z), m = sigma(z / tau). arXiv 2406.08414 eq. 5. Needs tau < 1 to stay finite."""
    chosen, rejected = shifts(policy, reference)
    z = beta * (chosen - rejected)
    # m e^(-z) as one exponential: for very negative z the product is 0 * inf.
    loss = (-z / tau).sigmoid() * ell(z) + (-ell(z / tau) - z).exp()
    return per_pair(loss, beta * chosen, beta * rejected)


def rdpo_length(policy: PairLogps, reference: PairLogps, *, beta: Number, alpha: Number) -> LossOutput:
    """ell(z + alpha (n_w - n_l)): length-regularised R-DPO, arXiv 2403.19159."""
    chosen, rejected = shifts(policy, reference)
    longer = policy.chosen_len - policy.rejected_len
    return per_pair(ell(beta * (chosen - rejected) + alpha * longer), beta * chosen, beta * rejected)


def ln_dpo(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """ell(beta * gain of token means). Length-normalised DPO as in Tulu 3, arXiv 2411.15124."""
    chosen, rejected = mean_shifts(policy, reference)
    return per_pair(ell(beta * (chosen - rejected)), beta * chosen, beta * rejected)


def sympo(policy: PairLogps, reference: PairLogps, *, beta: Number, form: str) -> LossOutput:
    """A symmetric loss, loss(z) + loss(-z) = 1. arXiv 2505.24709.

    `form`: sigmoid sigma(-z); ramp min(1, max(0, (1 - z)/2)); unhinged (1 - z)/2, which has no lower bound.
    """
    chosen, rejected = shifts(policy, reference)
    z = beta * (chosen - rejected)
    if form == "sigmoid":
        loss = (-z).sigmoid()
    else:
        loss = (1 - z) / 2
        if form == "ramp":
            loss = loss.clamp(0, 1)
    return per_pair(loss, beta * chosen, beta * rejected)


def ropo(policy: PairLogps, reference: PairLogps, *, beta: Number, alpha: Number) -> LossOutput:
    """4 alpha / (1 + alpha)^2 * [ell(z) + alpha sigma(-z)], peak pull beta at sigma(z) = (alpha - 1)/(2 alpha).

    Robust preference optimisation, arXiv 2404.04102, without its filtering of the data.
    """
    chosen, rejected = shifts(policy, reference)
    z = beta * (chosen - rejected)
    loss = 4 * alpha / (1 + alpha) ** 2 * (ell(z) + alpha * (-z).sigmoid())
    return per_pair(loss, beta * chosen, beta * rejected)


def dpo_pro(policy: PairLogps, reference: PairLogps, *, beta: Number, rho: Number) -> LossOutput:
    """Worst label probability in a chi-squared ball of radius rho around q: q~ ell(z) + (1 - q~) ell(-z).

    q = `extra["label_probability"]` `(..., B)`, the probability that the label is right; the worst case is
    q~ = q - sign(z) sqrt(rho q (1 - q)), kept in [0, 1]. arXiv 2509.02709, 2510.23590. Hard labels (q = 1) give dpo.
    """
    chosen, rejected = shifts(policy, reference)
    z = beta * (chosen - rejected)
    q = policy.extra["label_probability"]
    worst = (q - z.detach().sign() * (rho * q * (1 - q)).sqrt()).clamp(0, 1)
    return per_pair(worst * ell(z) + (1 - worst) * ell(-z), beta * chosen, beta * rejected)
