"""How much better than expected: advantages of tokens (GAE) and of whole responses (leave-one-out, group, baseline).

`(K, n, T)` tokens, `(K, n)` responses; the k samples of a prompt stand side by side, n = prompts x k. Hyperparameters
are numbers or columns `(K, 1)`. Everything here is data for the policy: no gradient runs through it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.objectives.terms import Number
from harness.types import InputError


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: Number = 1.0, lam: Number = 0.95
) -> tuple[Tensor, Tensor]:
    """Advantages and returns `(K, n, T)`, 0 at padding: Schulman et al., arXiv 1506.02438, Eq 16.

    A_t = sum_j (gamma lam)^j td_(t+j), td_t = R_t + gamma V_(t+1) - V_t, V = 0 past the last token;
    returns = A + V. `values` `(K, n, T)` are V before each token.
    """
    # With values and rewards at 0 there, padding adds nothing to what is carried back.
    values = torch.where(mask, values.detach(), 0.0)
    rewards = torch.where(mask, rewards.detach(), 0.0)
    following = torch.zeros_like(values[..., 0])
    carried = torch.zeros_like(following)
    columns: list[Tensor] = []
    for t in range(values.shape[-1] - 1, -1, -1):
        surprise = rewards[..., t] + gamma * following - values[..., t]
        carried = surprise + gamma * lam * carried
        following = values[..., t]
        columns.append(carried)
    advantages = torch.stack(columns[::-1], dim=-1)
    return advantages, advantages + values


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `(K, n, T)` over a lane's real tokens, `(K,)`; 0 for a lane without any."""
    count = mask.sum(dim=(-2, -1)).clamp(min=1)
    return torch.where(mask, x, 0.0).sum(dim=(-2, -1)) / count


def whiten(x: Tensor, mask: Tensor, shift: bool = True, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(var + eps) over each lane's real tokens, 0 at padding; without `shift` the mean is added back.

    The variance divides by the number of tokens less one. Whitening rescales the KL price along with the reward, so
    the optimum of a whitened run is not that of its beta.
    """
    mean = masked_mean(x, mask)[..., None, None]
    centred = torch.where(mask, x - mean, 0.0)
    count = mask.sum(dim=(-2, -1))[..., None, None]
    variance = centred.square().sum(dim=(-2, -1), keepdim=True) / (count - 1).clamp(min=1)
    out = centred / (variance + eps).sqrt()
    return out if shift else torch.where(mask, out + mean, 0.0)


def _groups(rewards: Tensor, k: int, least: int, what: str) -> Tensor:
    if k < least or rewards.shape[-1] % k:
        raise InputError(
            f"{what}: samples = {k} per prompt for {rewards.shape[-1]} responses; expected at least {least} that divide"
            " the number of responses"
        )
    return rewards.detach().reshape(*rewards.shape[:-1], -1, k)


def rloo(rewards: Tensor, k: int) -> Tensor:
    """R_i - mean of the prompt's other samples, `(K, n)`: Ahmadian et al., arXiv 2402.14740. Needs k >= 2."""
    groups = _groups(rewards, k, 2, "rloo")
    others = (groups.sum(-1, keepdim=True) - groups) / (k - 1)
    return (groups - others).reshape(rewards.shape)


def grpo(rewards: Tensor, k: int, scale: bool = True, eps: float = 1e-4) -> Tensor:
    """(R_i - group mean) / (group sd + eps), `(K, n)`: DeepSeekMath, arXiv 2402.03300; needs k >= 2.

    Without `scale` the deviation alone (Dr. GRPO, arXiv 2503.20783), which keeps the optimum: dividing by the sd
    weighs a prompt by how little its samples differ, KL price included. The sd divides by k - 1.
    """
    groups = _groups(rewards, k, 2, "grpo")
    centred = groups - groups.mean(-1, keepdim=True)
    out = centred / (groups.std(-1, keepdim=True) + eps) if scale else centred
    return out.reshape(rewards.shape)


def against_batch(rewards: Tensor) -> Tensor:
    """R_i - the lane's batch mean, `(K, n)`: the gradient is (n - 1)/n of the unbiased one."""
    return rewards.detach() - rewards.detach().mean(-1, keepdim=True)


def against_running(rewards: Tensor, baseline: Tensor, decay: Number = 0.9) -> tuple[Tensor, Tensor]:
    """R_i - baseline `(K, n)`, and the baseline `(K, 1)` of the next iteration: decay old + (1 - decay) batch mean."""
    mean = rewards.detach().mean(-1, keepdim=True)
    return rewards.detach() - baseline, decay * baseline + (1 - decay) * mean
