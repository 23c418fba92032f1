"""Weighted sums of means of independent samples: a difference, or a slope over groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import ArrayLike

from harness.metrics.statistics.intervals import Estimate, finite, moments, t_quantile


def independent_contrast(weights: Sequence[float], samples: Sequence[ArrayLike], level: float = 0.95) -> Estimate:
    """Sum of weight x mean over samples of different units, variances not assumed equal; n is the smallest sample's.

    Student t with the degrees of freedom of Welch (1947) and Satterthwaite (1946). A sample with fewer than 2 values
    leaves no interval, one without any no estimate.
    """
    arrays = [finite(sample) for sample in samples]
    n = min(array.size for array in arrays)
    if n == 0:
        return Estimate(0, math.nan, math.nan, math.nan)
    if n == 1:
        mean = math.fsum(w * math.fsum(a) / a.size for w, a in zip(weights, arrays, strict=True))
        return Estimate(1, mean, math.nan, math.nan)
    parts = [moments(array) for array in arrays]
    mean = math.fsum(weight * centre for weight, (centre, _) in zip(weights, parts, strict=True))
    squares = [(weight * error) ** 2 for weight, (_, error) in zip(weights, parts, strict=True)]
    variance = math.fsum(squares)
    if variance == 0:
        return Estimate(n, mean, mean, mean)
    freedom = variance**2 / math.fsum(s**2 / (a.size - 1) for s, a in zip(squares, arrays, strict=True))
    half = t_quantile(level, freedom) * math.sqrt(variance)
    return Estimate(n, mean, mean - half, mean + half)
