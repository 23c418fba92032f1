"""From a response's score to its rewards: scale, clip, penalties, and the KL price of every token.

`(K, n)` scores of K lanes and n responses, `(K, n, T)` tokens; hyperparameters are numbers or columns `(K, 1)`.
Responses are contiguous: `mask` is True on tokens 0 .. length - 1, the end-of-sequence token included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.objectives.terms import Number


def reward_scale(scores: Tensor) -> Tensor:
    """The standard deviation `(K, 1)` of reward-model scores `(K, m)`, by which `reward_scale` divides rewards.

    A reward that is constant has no scale: 1, so that it stays as it is.
    """
    spread = scores.std(dim=-1, keepdim=True, correction=0)
    return torch.where(spread > 1e-6 * scores.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30), spread, 1.0)


def shaped(
    scores: Tensor,
    lengths: Tensor,
    finished: Tensor,
    *,
    scale: Number = 1.0,
    clip: Number | None = None,
    missing_eos_penalty: Number = 0.0,
    length_penalty: Number = 0.0,
) -> Tensor:
    """clip(score / scale, +-clip) - missing_eos_penalty [not finished] - length_penalty x tokens, `(K, n)`.

    Penalties are in units of the scaled reward and act after the clip, so that clipping cannot hide them. An empty
    response (length 0) counts as unfinished. `finished` says that the response ended itself within the limit.
    """
    reward = scores / scale
    if clip is not None:
        bound = torch.as_tensor(clip, dtype=reward.dtype, device=reward.device)
        reward = torch.maximum(torch.minimum(reward, bound), -bound)
    cut = ~finished | (lengths == 0)
    return reward - missing_eos_penalty * cut.to(reward.dtype) - length_penalty * lengths.to(reward.dtype)


def last_token(mask: Tensor) -> Tensor:
    """`(K, n, T)`, True on the last real token of each response; nowhere for an empty one."""
    following = torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], dim=-1)
    return mask & ~following


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, beta: Number) -> Tensor:
    """R_t = -beta k_t + [t is last] score, `(K, n, T)`, 0 at padding (Ziegler et al., arXiv 1909.08593).

    `kl` `(K, n, T)` is a per-token estimate, `beta` `(K, 1)` or a number, in units of the score. The rewards are
    data: no gradient runs through them. An empty response has no token to carry its score and gets none.
    """
    price = beta[..., None] if isinstance(beta, Tensor) and beta.dim() else beta
    paid = torch.where(mask, -price * kl.detach(), 0.0)
    return paid + torch.where(last_token(mask), scores[..., None].detach(), 0.0)


def sequence_rewards(scores: Tensor, kl: Tensor, beta: Number) -> Tensor:
    """score - beta KL of whole responses, `(K, n)`: what RLOO, REINFORCE and GRPO compare."""
    return scores.detach() - beta * kl.detach()
