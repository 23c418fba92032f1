"""In which order a run sees its pairs: a function of names only, so that every comparison stays paired."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.identity import uniform


def _by_hash(ids: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Indices of `ids` by ascending hash of (seed, purpose, id); the id itself settles a tie."""
    if len(set(ids)) != len(ids):
        raise ValueError("ids must be unique: the order is a function of the id")
    return sorted(range(len(ids)), key=lambda i: (uniform(seed, purpose, ids[i]), ids[i]))


def batch_ids(ids: Sequence[str], seed: int, steps: int, batch_size: int) -> NDArray[np.int64]:
    """Indices into `ids` for each step, `(steps, batch_size)` int64.

    Each epoch is all of `ids` sorted by the hash of (seed, epoch, id), and epochs follow each other without a gap: the
    last partial batch of one runs on into the next. The order does not depend on the order of `ids`, and within an
    epoch dropping some ids leaves the others in the same order. Raises ValueError for no ids or repeated ones.
    """
    if not ids:
        raise ValueError("no ids to draw batches from")
    needed = steps * batch_size
    order = [i for epoch in range(-(-needed // len(ids))) for i in _by_hash(ids, seed, f"order {epoch}")]
    return np.array(order[:needed], dtype=np.int64).reshape(steps, batch_size)


def probe_ids(ids: Sequence[str], count: int) -> tuple[str, ...]:
    """The `count` ids (or all, where there are fewer) with the smallest hash, in that order; the same for every seed.

    Probes of different sizes are nested. Raises ValueError for repeated ids.
    """
    return tuple(ids[i] for i in _by_hash(ids, 0, "probe")[:count])
