"""KL between policy and frozen reference on the policy's own samples, and the coefficient that prices it.

Log-probs in nats, `(K, n, T)` for lanes, sequences, tokens; `mask` is True on real response tokens, which come first.
Estimators are those of J. Schulman, joschu.net/blog/kl-approx.html: for samples of the policy k1 and k3 are unbiased,
k2 is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from harness.objectives.terms import EXPONENT_LIMIT, Number
from harness.types import InputError

Estimator = Callable[[Tensor, Tensor], Tensor]


def k1(policy: Tensor, reference: Tensor) -> Tensor:
    """log pi - log pi_ref: unbiased, of either sign."""
    return policy - reference


def k2(policy: Tensor, reference: Tensor) -> Tensor:
    """(log pi - log pi_ref)^2 / 2: never negative, biased; its gradient is that of the KL."""
    return 0.5 * (policy - reference).square()


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """exp(-k1) - 1 + k1: never negative, unbiased. The exponent is capped at 80; there the exponential is constant."""
    ratio = policy - reference
    return (-ratio).clamp(max=EXPONENT_LIMIT).expm1() + ratio


ESTIMATORS: Mapping[str, Estimator] = {"k1": k1, "k2": k2, "k3": k3}


def token_kl(estimator: str, policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """The estimate at every token, `(K, n, T)`, 0 at padding whatever stands there.

    Summed over a response, k1 is the sequence's own k1; k3 estimates the sum of the KLs of the next-token
    distributions, which has the same expectation as the sequence's k3 but another spread.
    """
    kept = torch.where(mask, policy - reference, 0.0)
    return ESTIMATORS[estimator](kept, torch.zeros_like(kept))


def sequence_kl(estimator: str, policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """The estimate on summed log-probs, `(K, n)`: one per response. `kl` of the results is the mean of its k3."""
    ratio = torch.where(mask, policy - reference, 0.0).sum(-1)
    return ESTIMATORS[estimator](ratio, torch.zeros_like(ratio))


# --- the coefficient ------------------------------------------------------------------------------------------------


def adaptive(beta: Tensor, observed: Tensor, target: Number, gain: Number = 0.1, limit: float = 0.2) -> Tensor:
    """beta (1 + gain clip(observed / target - 1, +-limit)): Ziegler et al., arXiv 1909.08593, section 2.2.

    `beta` and `observed` are `(K, 1)`, nats per sequence; a lane whose KL is not finite keeps its beta.
    """
    error = (observed / target - 1).clamp(-limit, limit)
    return torch.where(torch.isfinite(observed), beta * (1 + gain * error), beta)


def scheduled(kind: str, start: Number, end: Number, progress: float) -> Number:
    """From `start` to `end` x `start` as `progress` goes from 0 to 1: linear, or half a cosine wave."""
    done = min(max(progress, 0.0), 1.0)
    share = done if kind == "linear" else 0.5 * (1 - math.cos(math.pi * done))
    return start * (1 - share + share * end)


def next_beta(
    controller: str,
    start: Tensor,
    current: Tensor,
    observed: Tensor,
    progress: float,
    *,
    target: Number = 6.0,
    gain: Number = 0.1,
    end: Number = 0.1,
) -> Tensor:
    """The coefficient of the next iteration, `(K, 1)`, under `controller`: fixed, adaptive, linear or cosine.

    `start` is the run's beta, `current` what this iteration used, `observed` its mean sequence KL (nats), `progress`
    the share of iterations done once this one is. Raises InputError for another controller.
    """
    if controller == "fixed":
        return start
    if controller == "adaptive":
        return adaptive(current, observed, target, gain)
    if controller in ("linear", "cosine"):
        return torch.as_tensor(scheduled(controller, start, end, progress))
    raise InputError(f"kl_controller: expected fixed, adaptive, linear or cosine, got {controller!r}")
