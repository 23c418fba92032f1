"""Stable arithmetic that objectives share. Every tensor is `(..., B)`, nats; hyperparameters are numbers or `(K, 1)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.types import LossOutput, PairLogps

Number = float | Tensor  # a Python number, or a tensor that broadcasts as (K, 1) against (K, B)

# e^80 = 5.5e34 still fits float32. Beyond it the exponent is held and has no gradient.
MAX_EXPONENT = 80.0


def ell(u: Tensor) -> Tensor:
    """-log sigmoid(u) = softplus(-u), exact in both tails (`softplus` turns linear at 20 and loses 2e-9 there)."""
    return -logsigmoid(u)


def safe_exp(exponent: Tensor) -> Tensor:
    """e^exponent with the exponent held at MAX_EXPONENT: finite in float32, without gradient beyond."""
    return exponent.clamp(max=MAX_EXPONENT).exp()


def safe_expm1(exponent: Tensor) -> Tensor:
    """e^exponent - 1 with the exponent held at MAX_EXPONENT; exact near 0."""
    return exponent.clamp(max=MAX_EXPONENT).expm1()


def like(value: Number, tensor: Tensor) -> Tensor:
    """A hyperparameter as a tensor of `tensor`'s dtype and device, so that torch functions take it."""
    return torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)


def batch_mean(values: Tensor) -> Tensor:
    """Mean over the batch, `(..., B)` to `(..., 1)`."""
    return values.mean(dim=-1, keepdim=True)


def shifts(policy: PairLogps, reference: PairLogps) -> tuple[Tensor, Tensor]:
    """(h_w, h_l): how far policy and reference part on each side, nats a sequence."""
    return policy.chosen - reference.chosen, policy.rejected - reference.rejected


def mean_shifts(policy: PairLogps, reference: PairLogps) -> tuple[Tensor, Tensor]:
    """(h_w / n_w, h_l / n_l), nats a token."""
    chosen, rejected = shifts(policy, reference)
    return chosen / policy.chosen_len, rejected / policy.rejected_len


def token_means(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """(a / n_w, b / n_l), nats a token."""
    return logps.chosen / logps.chosen_len, logps.rejected / logps.rejected_len


def likelihood(policy: PairLogps, weight: Number) -> Tensor:
    """The SFT term weight * NLL(chosen), NLL as the mean over the response's tokens."""
    return -weight * (policy.chosen / policy.chosen_len)


def per_pair(loss: Tensor, chosen: Tensor, rejected: Tensor, state: Mapping[str, Tensor] | None = None) -> LossOutput:
    """The output of an objective whose loss has a value per pair. `chosen`, `rejected`: the implicit rewards."""
    return LossOutput(loss, loss, chosen.detach(), rejected.detach(), state)


def per_batch(
    value: Tensor, base: Tensor, chosen: Tensor, rejected: Tensor, state: Mapping[str, Tensor] | None = None
) -> LossOutput:
    """The output of a batch-level objective: `value` `(..., 1)` stands in every entry, `base` is the per-pair loss."""
    return LossOutput(value.expand_as(base), base, chosen.detach(), rejected.detach(), state)


def widen(logps: PairLogps) -> PairLogps:
    """The same log-probs in at least float32: half precision cannot hold a sum of token log-probs."""
    if logps.chosen.dtype not in (torch.float16, torch.bfloat16):
        return logps
    extra = {name: value.float() if value.is_floating_point() else value for name, value in logps.extra.items()}
    return replace(logps, chosen=logps.chosen.float(), rejected=logps.rejected.float(), extra=extra)


def initial_state(scopes: Mapping[str, tuple[str, float]], logps: PairLogps) -> dict[str, Tensor]:
    """State before the first step. `scopes`: name -> (`pair` for `(..., B)` or `lane` for `(..., 1)`, first value)."""
    shape = logps.chosen
    return {
        name: torch.full_like(shape if scope == "pair" else shape[..., :1], first, requires_grad=False)
        for name, (scope, first) in scopes.items()
    }
