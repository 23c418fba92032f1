"""Building blocks of the losses: log-ratios, token means, stable log-sigmoids, and the `LossOutput` they end in.

Shapes are `(..., B)`; a hyperparameter is a Python float or a tensor that broadcasts against them, `(K, 1)`. The
registry is read by commands that must not load torch, so the losses use tensor methods, and the two functions here
that need torch itself import it when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from harness.types import LossOutput, PairLogps

if TYPE_CHECKING:
    from torch import Tensor

Number: TypeAlias = "Tensor | float"
Sides: TypeAlias = "tuple[Tensor, Tensor]"

EXPONENT_LIMIT = 80.0  # exp(80) = 5.5e34: the last exponent whose sums and products with beta stay in float32
ONE = -1e-6  # a mean log-prob of 0 (probability one) has no odds and no inverse: it is held a hair below


def neg_log_sigmoid(u: Tensor) -> Tensor:
    """-log sigmoid(u) = log(1 + exp(-u)), finite for every u."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(u)


def log_ratios(policy: PairLogps, reference: PairLogps) -> Sides:
    """Log-ratios log(policy / reference) of the chosen and the rejected response, nats per sequence."""
    return policy.chosen - reference.chosen, policy.rejected - reference.rejected


def means(logps: PairLogps) -> Sides:
    """Log-probs per token (nats); an empty response counts as one token."""
    return logps.chosen / logps.chosen_len.clamp(min=1), logps.rejected / logps.rejected_len.clamp(min=1)


def mean_log_ratios(policy: PairLogps, reference: PairLogps) -> Sides:
    """Log-ratios per token; the lengths are the policy's."""
    chosen, rejected = log_ratios(policy, reference)
    return chosen / policy.chosen_len.clamp(min=1), rejected / policy.rejected_len.clamp(min=1)


def chosen_nll(policy: PairLogps) -> Tensor:
    """-log-prob of the chosen response per token (nats): the reduction of every likelihood term but slic's."""
    return -policy.chosen / policy.chosen_len.clamp(min=1)


def capped_exp(exponent: Tensor) -> Tensor:
    """exp(exponent), held constant above EXPONENT_LIMIT: the gradient there is zero."""
    return exponent.clamp(max=EXPONENT_LIMIT).exp()


def log1mexp(u: Tensor) -> Tensor:
    """log(1 - exp(u)) for u < 0, accurate at both ends."""
    # Both branches are finite for u <= ONE, so the branch not taken sends no NaN back.
    near = (-u.clamp(min=-1).expm1()).log()
    far = (-u.clamp(max=-0.5).exp()).log1p()
    return near.where(u > -0.6931471805599453, far)


def tensor(value: Number, like: Tensor) -> Tensor:
    """`value` as a tensor with the type and on the device of `like`."""
    import torch

    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def per_pair(loss: Tensor, rewards: Sides, state: dict[str, Tensor] | None = None) -> LossOutput:
    """The output of a loss of each pair; no gradient runs through the rewards, which are only recorded."""
    return LossOutput(loss, loss, rewards[0].detach(), rewards[1].detach(), state)


def per_batch(value: Tensor, base: Tensor, rewards: Sides, state: dict[str, Tensor] | None = None) -> LossOutput:
    """The output of a loss `(..., 1)` of the batch, repeated for every pair; `base` is the per-pair loss recorded."""
    return LossOutput(value.expand_as(base), base, rewards[0].detach(), rewards[1].detach(), state)
