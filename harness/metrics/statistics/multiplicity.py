"""Many tests at once: Holm for a family named in advance, Benjamini-Hochberg for exploration of a grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.metrics.statistics.estimate import Floats, finite


def _p_values(values: Sequence[float]) -> Floats:
    p = finite(values)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p-values must lie in [0, 1]")
    return p


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given.

    Reject where <= alpha: the chance of any false rejection in the family stays below alpha, whatever the dependence.
    """
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (p.size - np.arange(p.size)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's (1995) step-up adjusted p-values, in the order given.

    Reject where <= q: of what is rejected a share of at most q is false on average (independent or positively
    dependent tests). For exploratory grids; a claim needs `holm` over a family named in advance.
    """
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return [float(value) for value in adjusted]
