"""Accuracies have two sources of chance, seeds and items: variance components, and resampling of both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.statistics.estimate import Estimate, Floats, finite, t_quantile

LAYOUTS = ("nested", "shared")


@dataclass(frozen=True, slots=True)
class Components:
    """Where the spread of `(seeds, items)` values comes from, as variances of one value; estimates may be 0, not below.

    `seeds`: between seeds; `items`: between items that all seeds share (0 where every seed has its own); `rest`: items
    within a seed, or seed by item. `mean_variance`: of the grand mean over new seeds AND new items; `item_variance`:
    its part that more items would remove; `df`: degrees of freedom of `mean_variance` (Satterthwaite).
    """

    seeds: float
    items: float
    rest: float
    mean_variance: float
    item_variance: float
    df: float


def variance_components(values: ArrayLike, layout: str = "nested") -> Components:
    """Closed form by analysis of variance of `values` (n seeds, m items), Searle, Casella and McCulloch 1992, ch. 3-4.

    nested (each seed draws its own items): Var(mean) = s2_seed / n + s2_rest / (n m) = MS_seed / (n m).
    shared (all seeds are scored on the same items): Var(mean) = s2_seed / n + s2_item / m + s2_rest / (n m)
    = (MS_seed + MS_item - MS_rest) / (n m), at least MS_seed / (n m) and at least MS_item / (n m).
    """
    table = _table(values, layout)
    n, m = table.shape
    mean = math.fsum(table.ravel()) / table.size
    by_seed, by_item = _sums(table) / m, _sums(table.T) / n
    ms_seed = m * math.fsum((by_seed - mean) ** 2) / (n - 1)
    if layout == "nested":
        ms_rest = math.fsum(((table - by_seed[:, None]) ** 2).ravel()) / (n * (m - 1))
        seeds = max(0.0, (ms_seed - ms_rest) / m)
        # Where seeds differ by less than their items explain, the items are what is known of the spread.
        variance = max(ms_seed, ms_rest) / (n * m)
        return Components(seeds, 0.0, ms_rest, variance, ms_rest / (n * m), n - 1)
    ms_item = n * math.fsum((by_item - mean) ** 2) / (m - 1)
    ms_rest = math.fsum(((table - by_seed[:, None] - by_item + mean) ** 2).ravel()) / ((n - 1) * (m - 1))
    seeds, items = max(0.0, (ms_seed - ms_rest) / m), max(0.0, (ms_item - ms_rest) / n)
    total = max(ms_seed + ms_item - ms_rest, ms_seed, ms_item)
    parts = ms_seed**2 / (n - 1) + ms_item**2 / (m - 1) + ms_rest**2 / ((n - 1) * (m - 1))
    df = max(1.0, total**2 / parts) if parts > 0 else float(n - 1)
    return Components(seeds, items, ms_rest, total / (n * m), max(ms_item, ms_rest) / (n * m), df)


def _sums(table: Floats) -> Floats:
    """The sum of each row, rounded once, so that it does not depend on the order of the columns."""
    return np.array([math.fsum(row) for row in table])


def two_level_interval(values: ArrayLike, layout: str = "nested", level: float = 0.95) -> Estimate:
    """Mean of `values` (n seeds, m items) with a t interval over new seeds and new items, from the closed form.

    `layout`: nested where every seed has items of its own, shared where all seeds are scored on the same. n counts
    seeds. Never narrower than the items of all seeds together allow. ValueError below 2 seeds or 2 items.
    """
    table = _table(values, layout)
    found = variance_components(table, layout)
    mean = math.fsum(table.ravel()) / table.size
    half = t_quantile(level, found.df) * math.sqrt(found.mean_variance)
    return Estimate(table.shape[0], mean, mean - half, mean + half)


def _table(values: ArrayLike, layout: str) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; expected one of {', '.join(LAYOUTS)}")
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"needs at least 2 seeds and 2 items, got shape {table.shape}")
    finite(table)
    return table
