"""Objectives of a whole batch: no pair has a loss of its own, so the batch value is repeated along B.

The records keep -log sigmoid(z) of each pair as `base_loss`. Batch means are taken over the last axis, lane by lane.
"""

from __future__ import annotations

import math

from torch import Tensor

from harness.objectives.terms import Number, log_ratios, neg_log_sigmoid, per_batch
from harness.types import LossOutput, PairLogps

BCO_DECAY = 0.9  # of the running reward shift; the paper says a moving average, without a number
BETA_DPO_DECAY = 0.9  # of the running mean margin


def kto(
    policy: PairLogps, reference: PairLogps, beta: Number, desirable_weight: Number, undesirable_weight: Number
) -> LossOutput:
    """Mean over the 2B responses of weight (1 - sigmoid(+-beta (h - z0))).

    z0 = max(0, batch mean log-ratio of mismatched pairs), no gradient. `extra["mismatched"]` `(..., B)` of policy and
    reference: log-prob of another prompt's response under the pair's prompt, from one fixed derangement.
    """
    chosen, rejected = log_ratios(policy, reference)
    baseline = (policy.extra["mismatched"] - reference.extra["mismatched"]).mean(-1, keepdim=True).relu().detach()
    desirable = desirable_weight * (beta * (baseline - chosen)).sigmoid()
    undesirable = undesirable_weight * (beta * (rejected - baseline)).sigmoid()
    value = (desirable + undesirable).mean(-1, keepdim=True) / 2
    return per_batch(value, neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


def kto_pair(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """Batch mean of (1 - sigmoid(beta (h_w - z0_l))) + (1 - sigmoid(beta (z0_w - h_l))), each z0 a batch mean >= 0."""
    chosen, rejected = log_ratios(policy, reference)
    chosen_zero, rejected_zero = (side.mean(-1, keepdim=True).relu().detach() for side in (chosen, rejected))
    loss = (beta * (rejected_zero - chosen)).sigmoid() + (beta * (rejected - chosen_zero)).sigmoid()
    value = loss.mean(-1, keepdim=True)
    return per_batch(value, neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


def bco(policy: PairLogps, reference: PairLogps, beta: Number, state: dict[str, Tensor]) -> LossOutput:
    """Batch mean of ell(r_w - shift) + ell(-(r_l - shift)), r = beta h; `state["shift"]` `(..., 1)` follows mean r."""
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    shift = state["shift"]
    value = (neg_log_sigmoid(chosen - shift) + neg_log_sigmoid(shift - rejected)).mean(-1, keepdim=True)
    batch = ((chosen + rejected) / 2).mean(-1, keepdim=True).detach()
    moved = {"shift": BCO_DECAY * shift + (1 - BCO_DECAY) * batch}
    return per_batch(value, neg_log_sigmoid(chosen - rejected), (chosen, rejected), moved)


def _ordered(high: Tensor, low: Tensor, beta: Number, eps: Number) -> Tensor:
    """Mean `(..., 1)` over order statistics of (1 - eps) ell(beta d) + eps ell(-beta d), d = high_(i) - low_(i)."""
    gap = beta * (high.sort(-1).values - low.sort(-1).values)
    return ((1 - eps) * neg_log_sigmoid(gap) + eps * neg_log_sigmoid(-gap)).mean(-1, keepdim=True)


def aot(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """First-order stochastic dominance of delta over delta_ref: both sorted within the batch."""
    chosen, rejected = log_ratios(policy, reference)
    value = _ordered(policy.chosen - policy.rejected, reference.chosen - reference.rejected, beta, eps)
    return per_batch(value, neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


def aot_unpaired(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """First-order stochastic dominance of h_w over h_l: both sorted within the batch."""
    chosen, rejected = log_ratios(policy, reference)
    value = _ordered(chosen, rejected, beta, eps)
    return per_batch(value, neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


def dr_dpo(policy: PairLogps, reference: PairLogps, beta: Number, beta_prime: Number) -> LossOutput:
    """-beta' log mean exp(-ell(z) / beta')."""
    chosen, rejected = log_ratios(policy, reference)
    base = neg_log_sigmoid(beta * (chosen - rejected))
    value = -beta_prime * ((-base / beta_prime).logsumexp(-1, keepdim=True) - math.log(base.shape[-1]))
    return per_batch(value, base, (beta * chosen, beta * rejected))


def beta_dpo(
    policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number, rho: Number, state: dict[str, Tensor]
) -> LossOutput:
    """Mean of ell(beta_B gain) over the share rho of pairs whose margin lies nearest to the running mean margin.

    beta_B = beta [1 + alpha (batch mean margin - running mean)], margin = beta gain, held at beta / 100 from below so
    that its sign cannot turn. `state["mean_margin"]` `(..., 1)` is the running mean before this batch.
    """
    chosen, rejected = log_ratios(policy, reference)
    gain = chosen - rejected
    margin = (beta * gain).detach()
    running, batch = state["mean_margin"], margin.mean(-1, keepdim=True)
    scale = (1 + alpha * (batch - running)).clamp(min=0.01)
    # The rank of each pair by distance; ties keep the order of the batch.
    rank = (margin - running).abs().argsort(dim=-1, stable=True).argsort(dim=-1)
    keep = (rank < (rho * (0 * batch + gain.shape[-1])).round().clamp(min=1)).to(gain.dtype)
    value = (keep * neg_log_sigmoid(beta * scale * gain)).sum(-1, keepdim=True) / keep.sum(-1, keepdim=True)
    moved = {"mean_margin": BETA_DPO_DECAY * running + (1 - BETA_DPO_DECAY) * batch}
    return per_batch(value, neg_log_sigmoid(beta * gain), (beta * chosen, beta * rejected), moved)
