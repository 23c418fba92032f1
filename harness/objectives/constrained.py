"""Objectives with a target margin: DPO losses that also ask the policy itself to rank the pair right.

Each is ell(beta (delta - T)) with T = delta_ref + Psi / beta. delta = a - b is the policy's log-ratio of the pair,
delta_ref the reference's, on token means or on sums as the row says. Inputs `(..., B)`, at least float32.
Source: arXiv 2605.20834 and its released code, unless a function says otherwise.
"""

from __future__ import annotations

from torch import Tensor

from harness.objectives.numerics import (
    Number,
    ell,
    likelihood,
    mean_shifts,
    per_pair,
    safe_exp,
    shifts,
    token_means,
)
from harness.types import LossOutput, PairLogps

# Inverse mean log-probs blow up where the reference is certain; 1e-6 nats a token below certainty is close enough.
SUREST = -1e-6


def _mean_reference(policy: PairLogps, reference: PairLogps) -> tuple[Tensor, Tensor]:
    """(b_w, b_l): the reference's token means over the policy's own lengths, as both score the same tokens."""
    return reference.chosen / policy.chosen_len, reference.rejected / policy.rejected_len


def _with_margin(
    policy: PairLogps, sides: tuple[Tensor, Tensor], psi: Tensor, beta: Number, rpo_alpha: Number
) -> LossOutput:
    """ell(beta * gain - psi) + rpo_alpha * NLL; the rewards leave the margin out, as the released code logs them."""
    chosen, rejected = beta * sides[0], beta * sides[1]
    loss = ell(chosen - rejected - psi) + likelihood(policy, rpo_alpha)
    return per_pair(loss, chosen, rejected)


def hypo(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """ell(beta (delta - max(delta_ref, 0))) on sums. HyPO, arXiv 2602.11902."""
    chosen, rejected = shifts(policy, reference)
    target = (reference.chosen - reference.rejected).relu()
    loss = ell(beta * (policy.chosen - policy.rejected - target))
    return per_pair(loss, beta * chosen, beta * rejected)


def cpo_clip(policy: PairLogps, reference: PairLogps, *, beta: Number, rpo_alpha: Number) -> LossOutput:
    """ell(beta (delta - max(delta_ref, 0))) on token means: the released `clip` branch."""
    chosen, rejected = token_means(policy)
    b_w, b_l = _mean_reference(policy, reference)
    loss = ell(beta * (chosen - rejected - (b_w - b_l).relu())) + likelihood(policy, rpo_alpha)
    return per_pair(loss, beta * (chosen - b_w), beta * (rejected - b_l))


def cpo_smooth(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta: Number,
    gamma: Number,
    tau: Number,
    alpha: Number,
    reduction: str,
    rpo_alpha: Number,
) -> LossOutput:
    """ell(beta * gain - (beta/alpha) m), m = softplus(tau (gamma - delta_ref)) / tau: the released smooth branch.

    `reduction` mean (as released) or sum says on which log-probs gain and delta_ref are taken.
    """
    if reduction == "mean":
        sides = mean_shifts(policy, reference)
        b_w, b_l = _mean_reference(policy, reference)
    else:
        sides = shifts(policy, reference)
        b_w, b_l = reference.chosen, reference.rejected
    smooth = ell(-tau * (gamma - (b_w - b_l))) / tau
    return _with_margin(policy, sides, beta / alpha * smooth, beta, rpo_alpha)


def ecpo_released(
    policy: PairLogps, reference: PairLogps, *, beta: Number, gamma: Number, rpo_alpha: Number
) -> LossOutput:
    """Psi = gamma (1/b_w + 1/b_l), inverse mean LOG-probs, hence Psi < 0: the released `easy` branch, bug for bug.

    It LOWERS the target, the opposite of `cpo_eq17`, the paper's own margin.
    """
    b_w, b_l = (side.clamp(max=SUREST) for side in _mean_reference(policy, reference))
    return _with_margin(policy, mean_shifts(policy, reference), gamma * (1 / b_w + 1 / b_l), beta, rpo_alpha)


def cpo_eq17(policy: PairLogps, reference: PairLogps, *, beta: Number, gamma: Number, rpo_alpha: Number) -> LossOutput:
    """Psi = gamma (e^-b_w + e^-b_l) > 0, inverse mean probabilities: the paper's margin, which RAISES the target.

    Exponents are held at MAX_EXPONENT. The opposite sign of `ecpo_released`, the released code.
    """
    b_w, b_l = _mean_reference(policy, reference)
    return _with_margin(
        policy, mean_shifts(policy, reference), gamma * (safe_exp(-b_w) + safe_exp(-b_l)), beta, rpo_alpha
    )


def cpo_dual(
    policy: PairLogps,
    reference: PairLogps,
    *,
    state: dict[str, Tensor],
    beta: Number,
    margin: Number,
    eta: Number,
) -> LossOutput:
    """ell(z - multiplier), the multiplier of a pair by dual ascent on delta >= margin, on sums.

    `state["multiplier"]` `(..., B)` is what the loss uses; handed back: max(0, multiplier + eta (margin - delta)).
    Derived: the Lagrangian of the linear constraint pi_w >= e^margin pi_l. Converges for eta < 2 beta.
    """
    chosen, rejected = shifts(policy, reference)
    multiplier = state["multiplier"]
    delta = (policy.chosen - policy.rejected).detach()
    loss = ell(beta * (chosen - rejected) - multiplier)
    ascent = (multiplier + eta * (margin - delta)).relu()
    return per_pair(loss, beta * chosen, beta * rejected, {"multiplier": ascent})
