"""Differences of two methods on the same seeds, or on the same items: intervals, the exact test, Holm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.statistics.intervals import MIN_SEEDS, Estimate, Floats, finite, moments, t_interval, wilson_ends

EXACT_SIGN_FLIPS = 16  # 2**16 sign patterns are still instant


def paired_differences(a: Mapping[int, float], b: Mapping[int, float]) -> Floats:
    """a - b on the seeds both have, (n,), in the order of the seeds."""
    return finite([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95) -> Estimate:
    """Mean of a - b over the common seeds with its paired t interval."""
    return t_interval(paired_differences(a, b), level)


def bonferroni_interval(differences: ArrayLike, comparisons: int, alpha: float = 0.05) -> Estimate:
    """t interval of the mean difference at level 1 - alpha / comparisons: simultaneous over a family of that size.

    Never narrower than the plain interval, equal to it for one comparison.
    """
    return t_interval(differences, level=simultaneous_level(comparisons, alpha))


def simultaneous_level(comparisons: int, alpha: float = 0.05) -> float:
    """1 - alpha / comparisons (Bonferroni). ValueError below one comparison."""
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons}")
    return 1.0 - alpha / comparisons


def newcombe_paired(a: float, b: float, both: float | None, items: float, level: float = 0.95) -> Estimate:
    """a - b for two shares of the SAME `items`, with Newcombe's square-and-add interval (Newcombe 1998, method 10).

    `both` is the share of items that count in both; None where it is not known, which takes the two as independent:
    wider than any positive dependence would give. Shares may be means over seeds, so counts may be fractional.
    Wide at saturation: 1 - 1 on 256 items gives +-.0148, never [0, 0]. ValueError on shares that cannot be.
    """
    if both is not None and not max(0.0, a + b - 1) - 1e-9 <= both <= min(a, b) + 1e-9:
        raise ValueError(f"shares {a} and {b} cannot have {both} in common")
    (low_a, high_a), (low_b, high_b) = wilson_ends(a, items, level), wilson_ends(b, items, level)
    phi = 0.0 if both is None else _phi(a, b, both, items)
    down_a, up_a, down_b, up_b = a - low_a, high_a - a, b - low_b, high_b - b
    low = math.sqrt(max(0.0, down_a**2 - 2 * phi * down_a * up_b + up_b**2))
    high = math.sqrt(max(0.0, up_a**2 - 2 * phi * up_a * down_b + down_b**2))
    return Estimate(int(items), a - b, a - b - low, a - b + high)


def _phi(a: float, b: float, both: float, items: float) -> float:
    """Correlation of two indicators on the same items, continuity-corrected towards 0 where it is positive."""
    scale = math.sqrt(a * (1 - a) * b * (1 - b))
    excess = both - a * b  # (ad - bc) / n^2 of the fourfold table
    if scale == 0.0:
        return 0.0
    return (max(0.0, excess - 0.5 / items) if excess > 0 else excess) / scale


def sign_flip_p(differences: ArrayLike) -> float:
    """Two-sided p of "the differences (n,) are symmetric about 0": exact over all 2**n sign flips up to n = 16, else t.

    Its floor is 2 / 2**n; below `MIN_SEEDS` differences it is not to be reported.
    """
    array = np.sort(finite(differences))
    n = array.size
    if n == 0:
        raise ValueError("no differences to test")
    if not array.any():
        return 1.0
    if n <= EXACT_SIGN_FLIPS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        totals = np.abs(signs @ array)
        # A flip that reproduces the observed sum must count although its rounding differs.
        return float(np.mean(totals >= abs(array.sum()) - 1e-12 * np.abs(array).sum()))
    mean, error = moments(array)
    if error == 0.0:
        return float(2.0 ** (1 - n))  # t has no value here; all signs agree, so the exact test is at its floor
    from scipy.special import stdtr

    return float(2 * stdtr(n - 1, -abs(mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given.

    Reject where <= alpha: the chance of any false rejection in the family stays below alpha, whatever the dependence.
    """
    p = finite(p_values)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p-values must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (p.size - np.arange(p.size)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def corrected_p(differences: Sequence[ArrayLike], alpha: float = 0.05) -> list[float | None]:
    """Sign-flip p-values of a family, corrected by Holm; None where no data could bring them below `alpha`.

    With n seeds no p is below 2 / 2**n, so among 90 comparisons at 10 seeds none could fall below .176. Differences of
    fewer than `MIN_SEEDS` seeds are not tested and do not count in the family.
    """
    arrays = [finite(values) for values in differences]
    tested = [i for i, array in enumerate(arrays) if array.size >= MIN_SEEDS]
    least = holm([2 / 2**n if (n := arrays[i].size) <= EXACT_SIGN_FLIPS else 0.0 for i in tested])
    found = holm([sign_flip_p(arrays[i]) for i in tested])
    shown = {i: p for i, p, floor in zip(tested, found, least, strict=True) if floor < alpha}
    return [shown.get(i) for i in range(len(arrays))]
