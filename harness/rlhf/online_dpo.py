"""Fresh preference pairs from samples of the current policy, labelled by a reward: online DPO (arXiv 2402.04792)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.objectives.registry import OBJECTIVES
from harness.objectives.terms import Number
from harness.rlhf.algorithms import Algorithm, Forward, Minibatch, Rollout, Targets
from harness.rlhf.kl import sequence_kl
from harness.rlhf.losses import PolicyLoss
from harness.types import InputError, PairLogps


@dataclass(frozen=True, slots=True)
class FreshPairs:
    """Pairs `(K, B)` as positions among a lane's responses.

    `valid` is False where both rewards are equal (or not finite): such a pair prefers nothing and must weigh nothing.
    `gap` is r(chosen) - r(rejected) >= 0, 0 where not valid.
    """

    chosen: Tensor
    rejected: Tensor
    valid: Tensor
    gap: Tensor


def fresh_pairs(rewards: Tensor, k: int, pairing: str = "best_worst") -> FreshPairs:
    """Pairs from `(K, prompts x k)` rewards, the k samples of a prompt side by side.

    `best_worst`: one pair a prompt, B = prompts. `adjacent`: samples 2i and 2i + 1 are a pair, B = prompts x k / 2
    (k even), which uses every sample once. Of equal rewards the first sample is named.
    """
    if k < 2 or rewards.shape[-1] % k or (pairing == "adjacent" and k % 2):
        raise InputError(
            f"online_dpo: samples = {k} per prompt for {rewards.shape[-1]} responses; expected at least 2 that divide"
            " the number of responses, and an even number for `pairing: adjacent`"
        )
    if pairing not in ("best_worst", "adjacent"):
        raise InputError(f"pairing: expected best_worst or adjacent, got {pairing!r}")
    width = k if pairing == "best_worst" else 2
    groups = rewards.detach().reshape(*rewards.shape[:-1], -1, width)
    offsets = width * torch.arange(groups.shape[-2], device=rewards.device)
    best, worst = groups.argmax(-1), groups.argmin(-1)
    gap = (groups.gather(-1, best[..., None]) - groups.gather(-1, worst[..., None]))[..., 0]
    valid = torch.isfinite(groups).all(-1) & (gap > 0)
    return FreshPairs(best + offsets, worst + offsets, valid, torch.where(valid, gap, 0.0))


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
