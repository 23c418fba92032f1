"""Means over items that share a cluster (pairs of one prompt): intervals and tests that do not count them as new.

The mean is a ratio of cluster totals; its variance is that of the totals' residuals with G / (G - 1) (Cochran 1977,
eq. 3.34 and 9A.6; for one item per cluster the usual standard error of a mean), with Student's t on G - 1 degrees of
freedom (Cameron and Miller 2015, sec. VI). A share takes Wilson's interval at its effective number of items (Korn and
Graubard 1998), so that it stays inside [0, 1] and has a width at 0 and 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.metrics.statistics.intervals import Estimate, Floats, finite, t_quantile, wilson_ends, z_quantile


def cluster_index(clusters: ArrayLike) -> tuple[NDArray[np.int64], int]:
    """The number of each item's cluster, from 0, and how many clusters there are."""
    names, index = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    return index.astype(np.int64), len(names)


def _totals(values: Floats, index: NDArray[Any], count: int) -> Floats:
    return np.bincount(index, weights=values, minlength=count).astype(np.float64)


def clustered_interval(values: ArrayLike, clusters: ArrayLike, share: bool = False, level: float = 0.95) -> Estimate:
    """Mean of `values` (n,) over all items, with an interval for new clusters; `n` of the estimate counts clusters.

    `share`: the values are 0 or 1. Fewer than 2 clusters have no interval. Raises ValueError on non-finite values.
    """
    array = finite(values)
    index, count = cluster_index(clusters)
    if not array.size:
        return Estimate(0, math.nan, math.nan, math.nan)
    mean = math.fsum(array) / array.size
    if count < 2:
        return Estimate(count, mean, math.nan, math.nan)
    residuals = _totals(array - mean, index, count)
    variance = count / (count - 1) * math.fsum(residuals**2) / array.size**2
    t = t_quantile(level, count - 1)
    if not share:
        half = t * math.sqrt(variance)
        return Estimate(count, mean, mean - half, mean + half)
    # All alike: how far items of a cluster repeat each other is not known, so a cluster counts as one item.
    items = float(count) if variance == 0 else min(float(array.size), mean * (1 - mean) / variance)
    return Estimate(count, mean, *wilson_ends(mean, items * (z_quantile(level) / t) ** 2, level))


def clustered_p(values: ArrayLike, clusters: ArrayLike) -> float:
    """Two-sided p of "the mean of `values` (n,) is 0", by t on the cluster totals; 1 where it cannot be told."""
    array = finite(values)
    index, count = cluster_index(clusters)
    totals = _totals(array, index, count)
    # Restricted to the null: totals around 0, so that a handful of equal clusters is no proof.
    error = math.sqrt(math.fsum(totals**2))
    if count < 2 or error == 0:
        return 1.0
    from scipy.special import stdtr

    return float(2 * stdtr(count - 1, -abs(math.fsum(totals)) / error))


def below_rest_p(values: ArrayLike, inside: ArrayLike, clusters: ArrayLike) -> float:
    """One-sided p of "the mean inside is not below the mean of the rest"; 1 where either has fewer than 2 clusters.

    The variance is that of a random choice of as many clusters among all (a permutation's, so that a part in which all
    values happen to be alike proves nothing by it); t on the smaller number of clusters less one. A cluster on both
    sides counts on each, which is careful: what its items share would cancel.
    """
    array, mask = finite(values), np.asarray(inside, dtype=bool)
    parts, _ = cluster_index(clusters)
    index, count = cluster_index(2 * parts + mask)
    within, outside = len(np.unique(index[mask])), len(np.unique(index[~mask]))
    if min(within, outside) < 2:
        return 1.0
    residuals = array - math.fsum(array) / array.size
    totals = _totals(residuals, index, count)
    error = math.sqrt(within * outside / count * math.fsum(totals**2) / (count - 1))
    if error == 0:
        return 1.0
    from scipy.special import stdtr

    return float(stdtr(min(within, outside) - 1, math.fsum(residuals[mask]) / error))


def independent_difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of estimates on different clusters, by square-and-add of their intervals (Newcombe 1998, method 10)."""
    low = math.hypot(a.mean - a.low, b.high - b.mean)
    high = math.hypot(a.high - a.mean, b.mean - b.low)
    return Estimate(min(a.n, b.n), a.mean - b.mean, a.mean - b.mean - low, a.mean - b.mean + high)
