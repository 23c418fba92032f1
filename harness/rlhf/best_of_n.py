"""Best-of-n: draw n responses of the reference, keep the one with the highest reward. No training.

Exact in a finite world (distributions `(..., m)` over m responses), and the selection from samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.types import InputError


def best_of_n_distribution(reference: Tensor, rewards: Tensor, n: int) -> Tensor:
    """The distribution `(..., m)` of the best of n samples of `reference` `(..., m)`, probabilities that sum to 1.

    A reward level is reached with F^n - F-^n, where F = P_ref(r <= level) and F- = P_ref(r < level); within it the
    reference decides (Beirami et al., arXiv 2401.01879).
    """
    below = (rewards[..., None, :] < rewards[..., :, None]).to(reference.dtype)
    level = (rewards[..., None, :] == rewards[..., :, None]).to(reference.dtype)
    strictly = (below * reference[..., None, :]).sum(-1)
    mass = (level * reference[..., None, :]).sum(-1)
    reached = (strictly + mass).clamp(max=1.0).pow(n) - strictly.pow(n)
    return torch.where(mass > 0, reached * reference / torch.where(mass > 0, mass, 1.0), 0.0)


def kl_bound(n: int) -> float:
    """log n - (n - 1)/n, nats: KL(best-of-n || reference) is at most this, and reaches it as atoms vanish."""
    return math.log(n) - (n - 1) / n


def _groups(rewards: Tensor, n: int) -> Tensor:
    if n < 1 or rewards.shape[-1] % n:
        raise InputError(f"best_of_n: n = {n} must be at least 1 and divide the {rewards.shape[-1]} responses")
    return rewards.reshape(*rewards.shape[:-1], -1, n)


def select(rewards: Tensor, n: int) -> Tensor:
    """Positions `(K, prompts)` in 0 .. prompts x n - 1 of the best of every prompt's n samples `(K, prompts x n)`.

    The first of tied samples is taken: samples are exchangeable, so ties are split as the reference splits them.
    """
    groups = _groups(rewards, n)
    best = (groups == groups.amax(-1, keepdim=True)).to(torch.int8).argmax(-1)
    return best + n * torch.arange(groups.shape[-2], device=rewards.device)


def shares(rewards: Tensor, n: int) -> Tensor:
    """Weights `(K, prompts x n)` that sum to 1 a prompt: 1 / number of tied best samples for each of them, else 0.

    For means over what best-of-n would return: the average of `select` over the order of the samples.
    """
    groups = _groups(rewards, n)
    best = (groups == groups.amax(-1, keepdim=True)).to(rewards.dtype)
    return (best / best.sum(-1, keepdim=True)).reshape(rewards.shape)
