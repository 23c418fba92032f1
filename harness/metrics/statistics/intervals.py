"""Intervals of one mean or one share: Student t, Wilson, and what a cell of a report shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.statistics.estimate import Estimate, Floats, finite, moments, t_quantile, z_quantile


def t_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of `values` (n,) with its two-sided Student t interval at `level`.

    n = 1 has a mean and no interval, n = 0 neither. Independent of the order of the values. Raises ValueError on
    non-finite values: whether a missing run is dropped or counted as worst is the caller's stated choice.
    """
    array = finite(values)
    if array.size < 2:
        return Estimate(array.size, float(array[0]) if array.size else math.nan, math.nan, math.nan)
    mean, error = moments(array)
    half = t_quantile(level, array.size - 1) * error
    return Estimate(array.size, mean, mean - half, mean + half)


def stratified_t_interval(values: ArrayLike, strata: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of `values` (n,) over all units, spread taken within `strata` (n,) only, with Satterthwaite's df.

    mean = sum_h w_h mean_h with w_h = n_h / n; variance = sum_h w_h^2 s_h^2 / n_h (Cochran 1977, eq. 5.7; df 5.16).
    Differences between strata (tasks, conditions) are fixed and add no width. Raises ValueError where a stratum has
    a single unit: its spread is not known.
    """
    groups = by_stratum(values, strata)
    n = sum(group.size for group in groups)
    parts = [moments(group) for group in groups]
    mean = math.fsum(group.size * m / n for group, (m, _) in zip(groups, parts, strict=True))
    shares = [(group.size * error / n) ** 2 for group, (_, error) in zip(groups, parts, strict=True)]
    variance = math.fsum(shares)
    if variance == 0.0:
        return Estimate(n, mean, mean, mean)
    df = variance**2 / math.fsum(v * v / (group.size - 1) for v, group in zip(shares, groups, strict=True))
    half = t_quantile(level, df) * math.sqrt(variance)
    return Estimate(n, mean, mean - half, mean + half)


def by_stratum(values: ArrayLike, strata: ArrayLike) -> list[Floats]:
    """The values of each stratum, sorted, strata in ascending order. ValueError where one has fewer than 2."""
    array, labels = finite(values), np.asarray(strata).ravel()
    if labels.size != array.size:
        raise ValueError(f"{array.size} values and {labels.size} strata: one stratum a value is needed")
    names, index = np.unique(labels, return_inverse=True)
    groups = [np.sort(array[index == i]) for i in range(names.size)]
    if any(group.size < 2 for group in groups):
        raise ValueError("a stratum with a single unit has no spread: needs at least 2 units in each")
    return groups


def wilson(successes: float, n: int, level: float = 0.95) -> Estimate:
    """successes / n with Wilson's score interval (Wilson 1927). `successes` may be fractional (a mean times n)."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes {successes} outside [0, n = {n}]")
    if n == 0:
        return Estimate(0, math.nan, math.nan, math.nan)
    share = successes / n
    return Estimate(n, share, *wilson_ends(share, n, level))


def wilson_ends(share: float, items: float, level: float = 0.95) -> tuple[float, float]:
    """Ends of Wilson's interval of a share of `items`, which may be an effective number."""
    z = z_quantile(level)
    centre = (share + z * z / (2 * items)) / (1 + z * z / items)
    half = z / (1 + z * z / items) * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items))
    # Rounding could leave the share itself a hair outside at 0 and 1.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def cell_estimate(
    seed_values: ArrayLike, item_counts: int | Sequence[int] | None = None, share: bool = True, level: float = 0.95
) -> Estimate:
    """Mean of one cell over its seeds (n,) with an interval that speaks about new seeds and new items.

    Student t at every n (below 20 seeds a percentile bootstrap covers too little; from 20 on t is as good and needs no
    draws). For a share the interval is clipped to [0, 1] and, where `item_counts` says on how many items each seed's
    value rests (one number, or one per seed), joined with Wilson's interval of the mean on the items of ONE seed, the
    smallest: seeds may share their items, so counting them all would pretend to more items than there are.
    A single seed has no interval, since items say nothing about other seeds.
    """
    estimate = t_interval(seed_values, level)
    if not share or estimate.n < 2:
        return estimate
    if not 0 <= estimate.mean <= 1:
        raise ValueError(f"a share must lie in [0, 1], its mean is {estimate.mean}")
    low, high = max(0.0, estimate.low), min(1.0, estimate.high)
    if item_counts is not None:
        items = item_counts if isinstance(item_counts, int) else min(item_counts)
        item_level = wilson(estimate.mean * items, items, level)
        low, high = min(low, item_level.low), max(high, item_level.high)
    return Estimate(estimate.n, estimate.mean, low, high)
