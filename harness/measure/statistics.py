"""Intervals, tests and verdicts: the one home of the harness's statistics. numpy, scipy on first use.

The unit of replication is the seed; differences are paired by seed. Fewer than `MIN_SEEDS` seeds give an interval and
never a verdict. Sources: Student (means), Wilson 1927 (shares), exact sign flips, Holm 1979, Bonferroni.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The smallest two-sided sign-flip p of n pairs is 2 / 2**n: below 6 pairs it can never be under .05.
MIN_SEEDS = 6
EXACT_SIGN_FLIPS = 16  # 2**16 sign patterns are still instant

INTERVAL_ONLY = "interval only"
NO_DIFFERENCE = "no difference shown"
INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` units with its interval. `low` and `high` are NaN where no interval exists (n < 2)."""

    n: int
    mean: float
    low: float
    high: float

    def excludes(self, value: float = 0.0) -> bool:
        """Whether `value` lies strictly outside the interval; False where there is none."""
        return value < self.low or value > self.high


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(array).all():
        raise ValueError(
            f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite: drop or count them"
        )
    return array


def _moments(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard error (n >= 2), equal in every bit for every order of `values`."""
    n = values.size
    mean = math.fsum(values) / n
    if values.min() == values.max():
        return float(values[0]), 0.0
    return mean, math.sqrt(math.fsum((values - mean) ** 2) / (n - 1) / n)


def t_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of `values` (n,) with its two-sided Student t interval at `level`.

    n = 1 has a mean and no interval, n = 0 neither. Independent of the order of the values. Raises ValueError on
    non-finite values: whether a missing run is dropped or counted as worst is the caller's stated choice.
    """
    array = _finite(values)
    if array.size < 2:
        return Estimate(array.size, float(array[0]) if array.size else math.nan, math.nan, math.nan)
    from scipy.stats import t

    mean, error = _moments(array)
    half = float(t.isf((1.0 - level) / 2.0, array.size - 1)) * error
    return Estimate(array.size, mean, mean - half, mean + half)


def wilson(successes: float, n: int, level: float = 0.95) -> Estimate:
    """successes / n with Wilson's score interval (Wilson 1927). `successes` may be fractional (a mean times n)."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes {successes} outside [0, n = {n}]")
    if n == 0:
        return Estimate(0, math.nan, math.nan, math.nan)
    from scipy.stats import norm

    share, z = successes / n, float(norm.isf((1.0 - level) / 2.0))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding could leave the share itself a hair outside at 0 and 1.
    return Estimate(n, share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


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


def paired_differences(a: Mapping[int, float], b: Mapping[int, float]) -> NDArray[np.float64]:
    """a - b on the seeds both have, (n,), in the order of the seeds."""
    return _finite([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95) -> Estimate:
    """Mean of a - b over the common seeds with its paired t interval."""
    return t_interval(paired_differences(a, b), level)


def sign_flip_p(differences: ArrayLike) -> float:
    """Two-sided p of "the differences (n,) are symmetric about 0": exact over all 2**n sign flips up to n = 16, else t.

    Its floor is 2 / 2**n; below `MIN_SEEDS` differences it is not to be reported.
    """
    array = np.sort(_finite(differences))
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
    mean, error = _moments(array)
    if error == 0.0:
        return float(2.0 ** (1 - n))  # t has no value here; all signs agree, so the exact test is at its floor
    from scipy.stats import t

    return float(2 * t.sf(abs(mean) / error, n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given; reject where <= alpha (family-wise level alpha)."""
    p = _finite(p_values)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p-values must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (p.size - np.arange(p.size)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def bonferroni_interval(differences: ArrayLike, comparisons: int, alpha: float = 0.05) -> Estimate:
    """t interval of the mean difference at level 1 - alpha / comparisons: simultaneous over a family of that size.

    Never narrower than the plain interval, equal to it for one comparison.
    """
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons}")
    return t_interval(differences, level=1.0 - alpha / comparisons)


def t_test_power(effect: float, n: int, comparisons: int = 1, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test for a true mean of `effect` standard deviations (noncentral t)."""
    from scipy.stats import nct, t

    critical, shift = float(t.isf(alpha / comparisons / 2, n - 1)), effect * math.sqrt(n)
    # The wrong tail is below 1e-9 once the right one matters, and the noncentral cdf is unstable that far out.
    wrong_tail = float(nct.cdf(-critical, n - 1, shift)) if shift < 3 else 0.0
    return float(nct.sf(critical, n - 1, shift)) + wrong_tail


def minimum_detectable_effect(
    sd_difference: float, n: int, comparisons: int = 1, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest true mean difference a two-sided paired t test on `n` seeds finds with probability `power`.

    In the unit of `sd_difference`, the standard deviation of the paired differences; Bonferroni over `comparisons`.
    NaN for n < 2, where no test exists.
    """
    if comparisons < 1 or not 0 < alpha < power < 1:
        raise ValueError("needs comparisons >= 1 and 0 < alpha < power < 1")
    if n < 2:
        return math.nan
    from scipy.optimize import brentq

    high = 1.0
    while t_test_power(high, n, comparisons, alpha) < power:
        high *= 2
    return sd_difference * float(brentq(lambda d: t_test_power(d, n, comparisons, alpha) - power, 0.0, high, xtol=1e-9))


def verdict(
    corrected: Estimate, n: int, margin: float = 0.0, direction: str = "up", expected: int | None = None
) -> str:
    """The word a report may use for a paired difference (method minus baseline) with its corrected interval.

    Fewer than 6 seeds: "interval only". Fewer than `expected`: "incomplete". "better" or "worse" only where the
    corrected interval excludes 0 and |difference| >= `margin`; `direction` is the measure's (up: larger is better;
    down: smaller is better; none: "higher" or "lower"). Everything else is "no difference shown".
    """
    if direction not in ("up", "down", "none"):
        raise ValueError(f"direction must be up, down or none, got {direction!r}")
    if n < MIN_SEEDS:
        return INTERVAL_ONLY
    if expected is not None and n < expected:
        return INCOMPLETE
    if not corrected.excludes(0.0) or abs(corrected.mean) < margin:
        return NO_DIFFERENCE
    if direction == "none":
        return "higher" if corrected.mean > 0 else "lower"
    return "better" if (corrected.mean > 0) == (direction == "up") else "worse"
