"""The value model's loss and how well it explains the returns. `(K, n, T)` tokens, `(K,)` results."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.objectives.terms import Number
from harness.rlhf.advantage import masked_mean


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: Number = 0.2) -> Tensor:
    """1/2 mean max((V - R)^2, (V_clip - R)^2), V_clip = V_old + clip(V - V_old, +-clip): PPO's, over real tokens.

    `old` are the values at sampling, `clip` is in units of the reward, a number or `(K, 1)`.
    """
    bound = torch.as_tensor(clip, dtype=values.dtype, device=values.device)
    bound = bound[..., None] if bound.dim() else bound
    moved = torch.minimum(torch.maximum(values - old.detach(), -bound), bound)
    errors = torch.maximum((values - returns).square(), (old.detach() + moved - returns).square())
    return 0.5 * masked_mean(errors, mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R) over real tokens, `(K,)`: 1 perfect, 0 no better than a constant, negative worse.

    Constant returns leave nothing to explain: 0.
    """

    def variance(x: Tensor) -> Tensor:
        return masked_mean((x - masked_mean(x, mask)[..., None, None]).square(), mask)

    spread = variance(returns.detach())
    left = variance(returns.detach() - values.detach())
    return torch.where(spread > 0, 1 - left / torch.where(spread > 0, spread, 1.0), 0.0)
