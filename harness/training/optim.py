"""AdamW, gradient clipping and the learning-rate schedule with its warm-up, for K lanes at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.types import TrainingSpec

BLOCK = 1 << 17  # numbers of each tensor that an update handles at a time: 512 KB, of which a core's cache holds a few


@dataclass(frozen=True, slots=True)
class AdamState:
    """First and second moments `(K, P)` of a pack."""

    mean: Tensor
    square: Tensor


def adam_state(flat: Tensor) -> AdamState:
    """Zero moments for parameters `(K, P)`."""
    return AdamState(torch.zeros_like(flat), torch.zeros_like(flat))


def learning_rate(step: int, training: TrainingSpec) -> float:
    """The rate of update number `step` (0-based): linear warm-up, then the schedule down to `final_lr_fraction`.

    With w warm-up steps and n steps in all the factor is (step + 1) / w while step < w, then falls from 1 to
    `final_lr_fraction` at the last update: in a line, or as (1 + cos(pi x)) / 2 does; or it stays 1.
    """
    warmup, steps = min(training.warmup_steps, training.steps), training.steps
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    span = max(steps - 1 - warmup, 1)
    done = min((step - warmup) / span, 1.0)
    if training.schedule == "constant":
        return training.learning_rate
    if training.schedule == "cosine":
        done = (1.0 - math.cos(math.pi * done)) / 2
    return training.learning_rate * (1.0 - (1.0 - training.final_lr_fraction) * done)


def clip(grad: Tensor, max_norm: Tensor, norm: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scale each lane's gradient, in place, to at most its own `max_norm` `(K, 1)` (<= 0: no clipping).

    Also returns the norms `(K, 1)` before it, which are given where `grad` is not all there is of it. Same rule as
    `torch.nn.utils.clip_grad_norm_`: factor min(1, max_norm / (norm + 1e-6)).
    """
    norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True) if norm is None else norm
    factor = torch.where(max_norm > 0, (max_norm / (norm + 1e-6)).clamp(max=1.0), 1.0)
    return grad.mul_(factor), norm


def bias_corrections(step: int, training: TrainingSpec) -> tuple[float, float]:
    """Adam's corrections of update number `step` (from 1): 1 - beta1^step and sqrt(1 - beta2^step)."""
    return 1.0 - training.adam_beta1**step, (1.0 - training.adam_beta2**step) ** 0.5


def adamw_step(
    flat: Tensor,
    grad: Tensor,
    state: AdamState,
    *,
    first: Tensor | float,
    second: Tensor | float,
    rate: Tensor,
    beta1: float,
    beta2: float,
    weight_decay: float,
    alive: Tensor,
    epsilon: float = 1e-8,
) -> None:
    """One decoupled-weight-decay Adam update in place (arXiv 1711.05101; the arithmetic of `torch.optim.AdamW`).

    `flat`, `grad` `(K, P)`; `rate` `(K, 1)` and the two `bias_corrections`, of all lanes or `(K, 1)`; `alive` `(K, 1)`
    bool: a dead lane keeps its last weights, and its moments fade. Done block by block, so that what lies between two
    operations stays in the cache.
    """
    rate = torch.where(alive, rate, 0.0)
    kept, pull = 1.0 - rate * weight_decay, rate / first
    width = max(BLOCK // len(flat) // 64, 1) * 64
    for weights, slope, mean, square in zip(
        *(torch.split(t, width, 1) for t in (flat, grad, state.mean, state.square)), strict=True
    ):
        slope = slope.masked_fill(~alive, 0.0)
        mean.lerp_(slope, 1.0 - beta1)
        square.mul_(beta2).addcmul_(slope, slope, value=1.0 - beta2)
        denominator = square.sqrt().div_(second).add_(epsilon)
        weights.mul_(kept).sub_((mean / denominator).mul_(pull))
