"""Online DPO: the loss of dpo on pairs of the policy's own samples, labelled by the reward (arXiv 2402.04792)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.objectives.table import OBJECTIVES
from harness.objectives.terms import Number
from harness.rlhf.algorithms import Algorithm, Forward, Minibatch, Rollout, Targets
from harness.rlhf.kl import sequence_kl
from harness.rlhf.online_pairs import fresh_pairs
from harness.rlhf.policy_loss import PolicyLoss
from harness.types import PairLogps


def pair_targets(
    rollout: Rollout,
    beta: Number,  # noqa: ARG001
    state: Mapping[str, Tensor] | None = None,  # noqa: ARG001
    *,
    pairing: str = "best_worst",
    **_: Any,
) -> Targets:
    """Which responses are compared: +1 for the better of a pair, -1 for the other, 0 for one that is in no pair."""
    pairs = fresh_pairs(rollout.scores, rollout.k, pairing)
    weight = pairs.valid.to(rollout.scores.dtype)
    sign = torch.zeros_like(rollout.scores).scatter_add(-1, pairs.chosen, weight)
    kl = sequence_kl("k1", rollout.logps, rollout.reference, rollout.mask)
    return Targets(sign.scatter_add(-1, pairs.rejected, -weight), kl)


def pair_loss(
    now: Forward, batch: Minibatch, *, k: int, beta: Number = 0.1, pairing: str = "best_worst", **_: Any
) -> PolicyLoss:
    """Mean dpo loss `(K,)` over the pairs of `pair_targets`; 0 without any, which moves nothing."""
    width = k if pairing == "best_worst" else 2
    mask = batch.mask

    def side(logps: Tensor, sign: int) -> Tensor:
        total = torch.where(mask, logps, 0.0).sum(-1)
        picked = torch.where(batch.advantages * sign > 0, total, 0.0)
        return picked.view(*picked.shape[:-1], -1, width).sum(-1)

    def pairs(logps: Tensor) -> PairLogps:
        return PairLogps(side(logps, 1), side(logps, -1), one, one)

    found = (batch.advantages > 0).view(*batch.advantages.shape[:-1], -1, width).any(-1)
    one = torch.ones_like(found, dtype=now.logps.dtype)
    losses = OBJECTIVES["dpo"].loss(pairs(now.logps), pairs(batch.reference), beta=beta).loss
    count = found.sum(-1)
    mean = torch.where(found, losses, 0.0).sum(-1) / count.clamp(min=1)
    return PolicyLoss(mean, {"pairs": count.to(one.dtype)})


online_dpo = Algorithm(pair_targets, pair_loss)
