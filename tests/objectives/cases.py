"""Pairs, hyperparameters and extra input for tests over the whole table of objectives."""

from __future__ import annotations

import torch

from harness.laws.objectives import at, batch, needed, with_extras
from harness.objectives import OBJECTIVES
from harness.types import PairLogps

# Rows with a loss of given pairs; those of family rl sample their own responses and have tests of their own.
NAMES = tuple(sorted(name for name, row in OBJECTIVES.items() if row.family != "rl"))
RL_NAMES = tuple(sorted(name for name, row in OBJECTIVES.items() if row.family == "rl"))
BATCH_LEVEL = tuple(name for name in NAMES if OBJECTIVES[name].family == "batch")
__all__ = ["BATCH_LEVEL", "G1", "NAMES", "RL_NAMES", "at", "batch", "needed", "pair", "pairs", "value", "with_extras"]


def pairs(chosen, rejected, chosen_len, rejected_len, extra=None) -> PairLogps:
    """PairLogps of float64 tensors from plain lists."""
    values = (torch.as_tensor(x, dtype=torch.float64) for x in (chosen, rejected, chosen_len, rejected_len))
    return PairLogps(*values, extra=extra or {})


def pair(a, b, a0, b0, n_w=10, n_l=12) -> tuple[PairLogps, PairLogps]:
    """One pair, shape (1,)."""
    return pairs([a], [b], [n_w], [n_l]), pairs([a0], [b0], [n_w], [n_l])


G1 = pair(-12.0, -15.5, -14.0, -13.0)


def value(name, policy, reference, state=None, **hyperparameters) -> float:
    """Mean loss."""
    return OBJECTIVES[name].loss(policy, reference, state=state, **hyperparameters).loss.mean().item()
