"""Batch-level objectives: the value belongs to the batch, so it depends on batch size and composition.

`loss` repeats the batch value in every entry; `base_loss` is ell(z) per pair. Notation as in `pairwise`.
The batch is the last axis: statistics never cross lanes. Inputs `(..., B)`, at least float32.
"""

from __future__ import annotations

import math

from torch import Tensor

from harness.objectives.numerics import Number, batch_mean, ell, per_batch, shifts
from harness.types import LossOutput, PairLogps

DECAY = 0.9  # of running means: 0.9 old + 0.1 new
LEAST_SCALE = 1e-2  # of beta_dpo's beta against the one given: a negative beta would turn the preference round


def kto(
    policy: PairLogps, reference: PairLogps, *, beta: Number, desirable_weight: Number, undesirable_weight: Number
) -> LossOutput:
    """Mean over the 2B responses of w_D (1 - sigma(beta (h_w - z0))) and w_U (1 - sigma(beta (z0 - h_l))).

    z0 = max(0, batch mean of log pi - log pi_ref on `extra["mismatched"]` `(..., B)`), without gradient: responses
    under other pairs' prompts. KTO, arXiv 2402.01306.
    """
    chosen, rejected = shifts(policy, reference)
    z0 = batch_mean(policy.extra["mismatched"] - reference.extra["mismatched"]).detach().relu()
    wanted = desirable_weight * (beta * (z0 - chosen)).sigmoid()
    unwanted = undesirable_weight * (beta * (rejected - z0)).sigmoid()
    value = batch_mean(wanted + unwanted) / 2
    return per_batch(value, ell(beta * (chosen - rejected)), beta * chosen, beta * rejected)


def kto_pair(policy: PairLogps, reference: PairLogps, *, beta: Number) -> LossOutput:
    """(1 - sigma(beta (h_w - z_l))) + (1 - sigma(beta (z_w - h_l))), z_s = max(0, batch mean of h_s), no gradient.

    Each side is measured against the other side's mean. The form of earlier TRL versions, their mean times two.
    """
    chosen, rejected = shifts(policy, reference)
    z_w, z_l = (batch_mean(side).detach().relu() for side in (chosen, rejected))
    value = batch_mean((beta * (z_l - chosen)).sigmoid() + (beta * (rejected - z_w)).sigmoid())
    return per_batch(value, ell(beta * (chosen - rejected)), beta * chosen, beta * rejected)


def bco(policy: PairLogps, reference: PairLogps, *, state: dict[str, Tensor], beta: Number) -> LossOutput:
    """ell(beta h_w - shift) + ell(-(beta h_l - shift)). Binary classifier optimisation, arXiv 2404.04656.

    `state["shift"]` `(..., 1)` is what the loss uses; handed back: 0.9 shift + 0.1 (mean reward of the batch).
    """
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    shift = state["shift"]
    value = batch_mean(ell(chosen - shift) + ell(shift - rejected))
    mean = batch_mean((chosen + rejected).detach()) / 2
    moved = DECAY * shift + (1 - DECAY) * mean
    return per_batch(value, ell(chosen - rejected), chosen, rejected, {"shift": moved})


def aot(policy: PairLogps, reference: PairLogps, *, beta: Number, eps: Number) -> LossOutput:
    """Optimal transport of margins: delta and delta_ref sorted apart, then cdpo's loss rank by rank. arXiv 2406.05882."""
    delta = (policy.chosen - policy.rejected).sort(dim=-1).values
    delta_ref = (reference.chosen - reference.rejected).sort(dim=-1).values
    return _ranked(policy, reference, delta - delta_ref, beta, eps)


def aot_unpaired(policy: PairLogps, reference: PairLogps, *, beta: Number, eps: Number) -> LossOutput:
    """As `aot`, with h_w and h_l sorted apart: chosen and rejected need not belong together. arXiv 2406.05882."""
    chosen, rejected = shifts(policy, reference)
    return _ranked(policy, reference, chosen.sort(dim=-1).values - rejected.sort(dim=-1).values, beta, eps)


def _ranked(policy: PairLogps, reference: PairLogps, gaps: Tensor, beta: Number, eps: Number) -> LossOutput:
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    u = beta * gaps
    value = batch_mean((1 - eps) * ell(u) + eps * ell(-u))
    return per_batch(value, ell(chosen - rejected), chosen, rejected)


def dr_dpo(policy: PairLogps, reference: PairLogps, *, beta: Number, beta_prime: Number) -> LossOutput:
    """-beta' log mean exp(-ell(z)/beta'): pairs that fit badly count less. arXiv 2407.07880. Large beta' is dpo."""
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    base = ell(chosen - rejected)
    soft = (-base / beta_prime).logsumexp(dim=-1, keepdim=True) - math.log(base.shape[-1])
    return per_batch(-beta_prime * soft, base, chosen, rejected)


def beta_dpo(
    policy: PairLogps, reference: PairLogps, *, state: dict[str, Tensor], beta: Number, alpha: Number, rho: Number
) -> LossOutput:
    """Mean of ell(beta_B gain) over the rho B pairs whose margin M = beta gain is nearest the running mean M0.

    beta_B = beta (1 + alpha (mean M - M0)), without gradient and never below 0.01 beta. Ranking by a normal density
    around M0 is ranking by |M - M0|, so its width does not matter. `state["margin"]` `(..., 1)` is M0; handed back:
    0.9 M0 + 0.1 mean M. arXiv 2407.08639.
    """
    chosen, rejected = (beta * side for side in shifts(policy, reference))
    margins = chosen - rejected
    seen = margins.detach()
    running = state["margin"]
    mean = batch_mean(seen)
    scale = (1 + alpha * (mean - running)).clamp(min=LEAST_SCALE)
    rank = (seen - running).abs().argsort(dim=-1, stable=True).argsort(dim=-1)
    # rho B in float32 may fall a hair short of the whole number that is meant; one pair is always kept.
    kept = ((rank + 1 <= rho * seen.shape[-1] + 1e-3) | (rank == 0)).to(seen.dtype)
    value = batch_mean(kept * ell(scale * margins)) / batch_mean(kept)
    moved = DECAY * running + (1 - DECAY) * mean
    return per_batch(value, ell(margins), chosen, rejected, {"margin": moved})
