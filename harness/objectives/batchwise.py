"""Losses of a whole batch: no pair has a loss of its own, so the batch value is repeated along B.

The records keep -log sigmoid(z) of each pair as `base_loss`. Batch means are taken over the last axis, lane by lane.
In the equations `chosen` and `rejected` are log-ratios, z = beta (chosen - rejected). Each loss is followed by its row.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.objectives import step_zero as step0
from harness.objectives.hyperparameters import SUM_BETA
from harness.objectives.row import Objective, Preset, StateField
from harness.objectives.terms import Number, log_ratios, neg_log_sigmoid, per_batch
from harness.types import LossOutput, PairLogps, Parameter

if TYPE_CHECKING:
    from torch import Tensor

AOT_EPS = Parameter(
    0.0, low=0, high=0.5, high_open=True, search=(0, 0.4), doc="assumed flip rate of the labels",
    source="TRL's label_smoothing; range chosen here",
)  # fmt: skip
WEIGHT = Parameter(
    1.0, low=0, low_open=True, search=(1, 4 / 3), doc="weight of its side; chosen / rejected in [1, 4/3]",
    source="arXiv 2402.01306, TRL",
)  # fmt: skip

BCO_DECAY = 0.9  # of the running reward shift; the paper says a moving average, without a number
BETA_DPO_DECAY = 0.9  # of the running mean margin


def kto(
    policy: PairLogps, reference: PairLogps, beta: Number, desirable_weight: Number, undesirable_weight: Number
) -> LossOutput:
    """Mean over the 2B responses of weight (1 - sigmoid(+-beta (log-ratio - z0))).

    z0 = max(0, batch mean log-ratio of mismatched pairs), no gradient. `extra["mismatched"]` `(..., B)` of policy and
    reference: log-prob of another prompt's response under the pair's prompt, from one fixed derangement.
    """
    chosen, rejected = log_ratios(policy, reference)
    baseline = (policy.extra["mismatched"] - reference.extra["mismatched"]).mean(-1, keepdim=True).relu().detach()
    desirable = desirable_weight * (beta * (baseline - chosen)).sigmoid()
    undesirable = undesirable_weight * (beta * (rejected - baseline)).sigmoid()
    value = (desirable + undesirable).mean(-1, keepdim=True) / 2
    return per_batch(value, neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


KTO = Objective(
    "kto", kto, "batch", "sum", True,
    {"beta": SUM_BETA, "desirable_weight": WEIGHT, "undesirable_weight": WEIGHT},
    "arXiv 2402.01306", "prospect-theory value of each response against the batch's mean log-ratio",
    "a small batch estimates its zero point poorly; one more forward pass on mismatched pairs",
    needs=("mismatched",), step0=step0.kto,
    presets={"paper": Preset({}, "arXiv 2402.01306"), "trl": Preset({}, "TRL's KTOConfig")},
)  # fmt: skip


def kto_pair(policy: PairLogps, reference: PairLogps, beta: Number) -> LossOutput:
    """Batch mean of sigmoid(beta (z0_l - chosen)) + sigmoid(beta (rejected - z0_w)), each z0 a batch mean >= 0."""
    chosen, rejected = log_ratios(policy, reference)
    chosen_zero, rejected_zero = (side.mean(-1, keepdim=True).relu().detach() for side in (chosen, rejected))
    loss = (beta * (rejected_zero - chosen)).sigmoid() + (beta * (rejected - chosen_zero)).sigmoid()
    value = loss.mean(-1, keepdim=True)
    return per_batch(value, neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


KTO_PAIR = Objective(
    "kto_pair", kto_pair, "batch", "sum", True, {"beta": SUM_BETA},
    "older TRL", "kto with the zero point of each side taken from the other side",
    "as kto; the value is the sum of both sides, twice older TRL's mean", step0=step0.constant(1.0),
)  # fmt: skip


def bco(policy: PairLogps, reference: PairLogps, beta: Number, state: dict[str, Tensor]) -> LossOutput:
    """Batch mean of -log sigmoid(w - shift) - log sigmoid(shift - l), w = beta chosen, l = beta rejected.

    `state["shift"]` `(..., 1)` is a running mean of (w + l) / 2.
    """
    chosen, rejected = (beta * side for side in log_ratios(policy, reference))
    shift = state["shift"]
    value = (neg_log_sigmoid(chosen - shift) + neg_log_sigmoid(shift - rejected)).mean(-1, keepdim=True)
    batch = ((chosen + rejected) / 2).mean(-1, keepdim=True).detach()
    moved = {"shift": BCO_DECAY * shift + (1 - BCO_DECAY) * batch}
    return per_batch(value, neg_log_sigmoid(chosen - rejected), (chosen, rejected), moved)


BCO = Objective(
    "bco", bco, "batch", "sum", True, {"beta": SUM_BETA}, "arXiv 2404.04656",
    "a binary classifier of chosen against rejected, its threshold the running mean reward",
    "the threshold lags; TRL's bco_pair holds it at 0",
    state={"shift": StateField("lane", 0.0)}, step0=step0.constant(2 * step0.LOG2),
    presets={"paper": Preset({}, "arXiv 2404.04656")},
)  # fmt: skip


def _ordered(high: Tensor, low: Tensor, beta: Number, eps: Number) -> Tensor:
    """Mean `(..., 1)` of cdpo's loss over the gaps high_(i) - low_(i) of the sorted values."""
    gap = beta * (high.sort(-1).values - low.sort(-1).values)
    return ((1 - eps) * neg_log_sigmoid(gap) + eps * neg_log_sigmoid(-gap)).mean(-1, keepdim=True)


_AOT = {"trl": Preset({}, "TRL's DPOConfig: beta 0.1, label_smoothing 0")}


def aot(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """First-order stochastic dominance of delta over delta_ref: both sorted within the batch."""
    chosen, rejected = log_ratios(policy, reference)
    value = _ordered(policy.chosen - policy.rejected, reference.chosen - reference.rejected, beta, eps)
    return per_batch(value, neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


AOT = Objective(
    "aot", aot, "batch", "sum", True, {"beta": SUM_BETA, "eps": AOT_EPS}, "arXiv 2406.05882",
    "the policy's margins dominate the reference's as distributions, not pair by pair",
    "a single pair may get worse; depends on batch size", step0=step0.log_two, presets=_AOT,
)  # fmt: skip


def aot_unpaired(policy: PairLogps, reference: PairLogps, beta: Number, eps: Number) -> LossOutput:
    """First-order stochastic dominance of chosen over rejected log-ratios: both sorted within the batch."""
    chosen, rejected = log_ratios(policy, reference)
    value = _ordered(chosen, rejected, beta, eps)
    return per_batch(value, neg_log_sigmoid(beta * (chosen - rejected)), (beta * chosen, beta * rejected))


AOT_UNPAIRED = Objective(
    "aot_unpaired", aot_unpaired, "batch", "sum", True, {"beta": SUM_BETA, "eps": AOT_EPS},
    "arXiv 2406.05882", "chosen log-ratios dominate rejected ones as distributions",
    "forgets which responses belong together; depends on batch size", step0=step0.log_two, presets=_AOT,
)  # fmt: skip


def dr_dpo(policy: PairLogps, reference: PairLogps, beta: Number, beta_prime: Number) -> LossOutput:
    """-beta' log mean sigmoid(z)^(1 / beta')."""
    chosen, rejected = log_ratios(policy, reference)
    base = neg_log_sigmoid(beta * (chosen - rejected))
    value = -beta_prime * ((-base / beta_prime).logsumexp(-1, keepdim=True) - math.log(base.shape[-1]))
    return per_batch(value, base, (beta * chosen, beta * rejected))


DR_DPO = Objective(
    "dr_dpo", dr_dpo, "batch", "sum", True,
    {"beta": SUM_BETA, "beta_prime": Parameter(1.0, low=0, low_open=True, search=(0.1, 10), prior="log",
                                               doc="trust in the pairs; large values give dpo",
                                               source="arXiv 2407.07880; range chosen here")},
    "arXiv 2407.07880", "dpo with pairs of high loss weighted down", "hard but right pairs are weighted down too",
    step0=step0.log_two, presets={"paper": Preset({}, "arXiv 2407.07880")},
)  # fmt: skip


def beta_dpo(
    policy: PairLogps, reference: PairLogps, beta: Number, alpha: Number, rho: Number, state: dict[str, Tensor]
) -> LossOutput:
    """Mean of -log sigmoid(beta_B log-ratio margin) over the share rho of pairs nearest to the running mean.

    beta_B = beta [1 + alpha (batch mean margin - running mean)], margin = z, beta_B held at beta / 100 from below so
    that its sign cannot turn. `state["mean_margin"]` `(..., 1)` is the running mean before this batch.
    """
    chosen, rejected = log_ratios(policy, reference)
    log_ratio_margin = chosen - rejected
    margin = (beta * log_ratio_margin).detach()
    running, batch = state["mean_margin"], margin.mean(-1, keepdim=True)
    scale = (1 + alpha * (batch - running)).clamp(min=0.01)
    # The rank of each pair by distance; ties keep the order of the batch.
    rank = (margin - running).abs().argsort(dim=-1, stable=True).argsort(dim=-1)
    keep = (rank < (rho * (0 * batch + log_ratio_margin.shape[-1])).round().clamp(min=1)).to(log_ratio_margin.dtype)
    value = (keep * neg_log_sigmoid(beta * scale * log_ratio_margin)).sum(-1, keepdim=True) / keep.sum(-1, keepdim=True)
    moved = {"mean_margin": BETA_DPO_DECAY * running + (1 - BETA_DPO_DECAY) * batch}
    return per_batch(value, neg_log_sigmoid(beta * log_ratio_margin), (beta * chosen, beta * rejected), moved)


BETA_DPO = Objective(
    "beta_dpo", beta_dpo, "batch", "sum", True,
    {"beta": SUM_BETA,
     "alpha": Parameter(0.6, low=0, search=(0, 1), doc="how far beta follows the batch's margin",
                        source="arXiv 2407.08639; range chosen here"),
     "rho": Parameter(0.8, low=0, high=1, low_open=True, search=(0.5, 1), doc="share of pairs kept",
                      source="arXiv 2407.08639; range chosen here")},
    "arXiv 2407.08639", "dpo with beta set per batch, on the pairs with the most ordinary margins",
    "drops outliers whether wrong or informative; keeps the nearest pairs where the authors' code draws them, and"
    " its margin is beta times the log-ratio margin where theirs leaves beta out",
    state={"mean_margin": StateField("lane", 0.0)}, step0=step0.log_two,
)  # fmt: skip


ROWS = (KTO, KTO_PAIR, BCO, AOT, AOT_UNPAIRED, DR_DPO, BETA_DPO)
