"""Losses of policy and value model: what is minimised by gradient, and what is watched on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.objectives.terms import EXPONENT_LIMIT, Number
from harness.rlhf.advantage import masked_mean
from harness.rlhf.kl import token_kl
from harness.types import InputError


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """`loss` `(K,)` with its gradient; `statistics` by name, `(K,)` each, without.

    `clip_fraction`: share of ratios outside the clip range. `approx_kl`: mean of rho - 1 - log rho, nats, an estimate
    of KL(sampling policy || policy). `ratio`: mean rho. Over tokens, or over responses where the ratio is theirs.
    """

    loss: Tensor
    statistics: Mapping[str, Tensor]


def _column(value: Number) -> Number:
    return value[..., None] if isinstance(value, Tensor) and value.dim() else value


def _ratio(log_ratio: Tensor) -> Tensor:
    """exp, its exponent held within +-80."""
    return log_ratio.clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT).exp()


def _pessimistic(ratio: Tensor, advantages: Tensor, clip: Number) -> Tensor:
    """-min(rho A, clip(rho, 1 - clip, 1 + clip) A): Schulman et al., arXiv 1707.06347, Eq 7."""
    bound = torch.as_tensor(clip, dtype=ratio.dtype, device=ratio.device)
    held = torch.minimum(torch.maximum(ratio, 1 - bound), 1 + bound)
    return -torch.minimum(ratio * advantages, held * advantages)


def _statistics(log_ratio: Tensor, ratio: Tensor, mask: Tensor, clip: Number) -> dict[str, Tensor]:
    """Of `(K, n, T)` ratios over real tokens."""
    ratio, log_ratio = ratio.detach(), log_ratio.detach()
    outside = ((ratio - 1).abs() > clip).to(ratio.dtype)
    return {
        "clip_fraction": masked_mean(outside, mask),
        "approx_kl": masked_mean(ratio - 1 - log_ratio, mask),
        "ratio": masked_mean(ratio, mask),
    }


def clipped(logps: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: Number = 0.2) -> PolicyLoss:
    """PPO's policy loss: the mean over a lane's real tokens. `old` are the log-probs kept from sampling."""
    log_ratio = torch.where(mask, logps - old.detach(), 0.0)
    ratio, bound = _ratio(log_ratio), _column(clip)
    loss = masked_mean(_pessimistic(ratio, advantages.detach(), bound), mask)
    return PolicyLoss(loss, _statistics(log_ratio, ratio, mask, bound))


def sequence_reinforce(logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-mean_i A_i log pi(y_i), `(K,)`: Williams 1992; with `rloo` advantages arXiv 2402.14740. On-policy only."""
    total = torch.where(mask, logps, 0.0).sum(-1)
    return -(advantages.detach() * total).mean(-1)


def sequence_clipped(logps: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: Number = 0.2) -> PolicyLoss:
    """As `clipped` with one ratio a response, `(K, n)` advantages: several epochs of RLOO or REINFORCE.

    While the policy is still the sampling policy its gradient is that of `sequence_reinforce`.
    """
    log_ratio = torch.where(mask, logps - old.detach(), 0.0).sum(-1)
    ratio = _ratio(log_ratio)
    loss = _pessimistic(ratio, advantages.detach(), clip).mean(-1)
    whole = torch.ones_like(ratio, dtype=torch.bool)[..., None]
    return PolicyLoss(loss, _statistics(log_ratio[..., None], ratio[..., None], whole, _column(clip)))


def grpo(
    logps: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: Number = 0.2,
    average: str = "token",
    kl_reference: Tensor | None = None,
    beta: Number = 0.0,
) -> PolicyLoss:
    """GRPO's token loss for `(K, n)` advantages, plus beta k3 against `kl_reference` `(K, n, T)` where it is given.

    `average`: `sequence` is the paper's mean over responses of token means (arXiv 2402.03300, Eq 3), `token` the mean
    over all tokens of a lane (DAPO, arXiv 2503.14476), `constant` the sum over the longest possible response T
    (Dr. GRPO, arXiv 2503.20783). Only `constant` weighs every token alike whatever its response's length.
    """
    log_ratio = torch.where(mask, logps - old.detach(), 0.0)
    ratio, bound = _ratio(log_ratio), _column(clip)
    tokens = _pessimistic(ratio, advantages.detach()[..., None], bound)
    if kl_reference is not None:
        tokens = tokens + _column(beta) * token_kl("k3", logps, kl_reference.detach(), mask)
    tokens = torch.where(mask, tokens, 0.0)
    if average == "token":
        loss = masked_mean(tokens, mask)
    elif average == "sequence":
        loss = (tokens.sum(-1) / mask.sum(-1).clamp(min=1)).mean(-1)
    elif average == "constant":
        loss = tokens.sum(-1).mean(-1) / mask.shape[-1]
    else:
        raise InputError(f"average: expected token, sequence or constant, got {average!r}")
    return PolicyLoss(loss, _statistics(log_ratio, ratio, mask, bound))


def entropy_bonus(entropy: Tensor, mask: Tensor) -> Tensor:
    """Mean next-token entropy `(K,)` of a lane's real positions, nats; the loss takes -coefficient times it."""
    return masked_mean(entropy, mask)


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
