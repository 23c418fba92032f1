"""Pairs, hyperparameters and extra input for tests over the whole table of objectives."""

from __future__ import annotations

import torch

from harness.objectives import OBJECTIVES
from harness.types import PairLogps

# Rows with a loss of given pairs; those of family rl sample their own responses and have tests of their own.
NAMES = tuple(sorted(name for name, row in OBJECTIVES.items() if row.family != "rl"))
RL_NAMES = tuple(sorted(name for name, row in OBJECTIVES.items() if row.family == "rl"))
BATCH_LEVEL = tuple(name for name in NAMES if OBJECTIVES[name].family == "batch")
EXTRA = tuple(sorted({key for row in OBJECTIVES.values() for key in row.needs}))


def pairs(chosen, rejected, chosen_len, rejected_len, extra=None) -> PairLogps:
    """PairLogps of float64 tensors from plain lists."""
    values = (torch.as_tensor(x, dtype=torch.float64) for x in (chosen, rejected, chosen_len, rejected_len))
    return PairLogps(*values, extra=extra or {})


def pair(a, b, a0, b0, n_w=10, n_l=12) -> tuple[PairLogps, PairLogps]:
    """One pair, shape (1,)."""
    return pairs([a], [b], [n_w], [n_l]), pairs([a0], [b0], [n_w], [n_l])


G1 = pair(-12.0, -15.5, -14.0, -13.0)


def extras(logps: PairLogps, seed: int) -> dict[str, torch.Tensor]:
    """Plausible values of every extra key, shaped like `logps`: log-probs below 0, KLs above, shares in (0, 1)."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(low, high):
        noise = torch.rand(logps.chosen.shape, generator=draw, dtype=torch.float64)
        return (low + (high - low) * noise).to(logps.chosen.dtype)

    return {
        "mismatched": uniform(-60.0, -20.0),
        "chosen_log_weight": uniform(-1.0, 0.5),
        "rejected_log_weight": uniform(-1.0, 0.5),
        "chosen_head": logps.chosen.detach() * uniform(0.5, 1.0),
        "rejected_head": logps.rejected.detach() * uniform(0.5, 1.0),
        "chosen_kl": uniform(0.0, 5.0),
        "rejected_kl": uniform(0.0, 5.0),
        "entropy_share": uniform(0.1, 0.9),
    }


def with_extras(policy: PairLogps, reference: PairLogps) -> tuple[PairLogps, PairLogps]:
    """Both sides with every extra key."""
    return tuple(
        PairLogps(x.chosen, x.rejected, x.chosen_len, x.rejected_len, extras(x, seed))
        for seed, x in enumerate((policy, reference))
    )


def batch(shape=(3, 16), seed=0, dtype=torch.float64) -> tuple[PairLogps, PairLogps]:
    """Random pairs of moderate size with every extra key; policy and reference differ by a few nats."""
    draw = torch.Generator().manual_seed(seed)
    lengths = [torch.randint(2, 20, shape, generator=draw).to(dtype) for _ in range(2)]
    first = [-n * (0.5 + torch.rand(shape, generator=draw, dtype=torch.float64)).to(dtype) for n in lengths]
    second = [a + torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for a in first]
    return with_extras(PairLogps(*(x.clamp(max=-1e-3) for x in second), *lengths), PairLogps(*first, *lengths))


def needed(policy: PairLogps, keys) -> PairLogps:
    """The same log-probs with the extra keys `keys` alone."""
    extra = {key: policy.extra[key] for key in keys}
    return PairLogps(policy.chosen, policy.rejected, policy.chosen_len, policy.rejected_len, extra)


def at(policy: PairLogps, index) -> PairLogps:
    """Indexing of every field."""
    fields = (policy.chosen, policy.rejected, policy.chosen_len, policy.rejected_len)
    return PairLogps(*(x[index] for x in fields), {key: x[index] for key, x in policy.extra.items()})


def value(name, policy, reference, state=None, **hyperparameters) -> float:
    """Mean loss."""
    return OBJECTIVES[name].loss(policy, reference, state=state, **hyperparameters).loss.mean().item()
