"""Fresh preference pairs from samples of the current policy, labelled by a reward: online DPO (arXiv 2402.04792)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.types import InputError


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
            f"online_dpo: samples = {k} a prompt for {rewards.shape[-1]} responses; expected at least 2 that divide"
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
