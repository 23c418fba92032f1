"""Intervals of one mean or one share: Student t and Wilson.

Equal in every bit for every order of the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# The smallest two-sided sign-flip p of n pairs is 2 / 2**n: below 6 pairs it can never be under .05.
MIN_SEEDS = 6


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


NOTHING = Estimate(0, math.nan, math.nan, math.nan)


def finite(values: ArrayLike) -> Floats:
    """`values` as a flat float64 array. Raises ValueError on non-finite ones: dropping them is the caller's choice."""
    array = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(array).all():
        raise ValueError(
            f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite: drop or count them"
        )
    return array


def moments(values: Floats) -> tuple[float, float]:
    """Mean and its standard error (n >= 2), equal in every bit for every order of `values` (n,)."""
    n = values.size
    if values.min() == values.max():
        return float(values[0]), 0.0
    mean = math.fsum(values) / n
    return mean, math.sqrt(math.fsum((values - mean) ** 2) / (n - 1) / n)


def t_quantile(level: float, df: float) -> float:
    """Half-width of a two-sided Student interval at `level`, in standard errors."""
    from scipy.special import stdtrit

    return -float(stdtrit(df, (1.0 - level) / 2.0))


def t_degrees(level: float, half: float) -> float:
    """The degrees of freedom of the two-sided Student interval at `level` that is `half` standard errors wide."""
    from scipy.special import stdtridf

    return float(stdtridf((1.0 + level) / 2.0, half))


def z_quantile(level: float) -> float:
    """Half-width of a two-sided normal interval at `level`, in standard errors."""
    try:
        from scipy.special import ndtri
    except ImportError:  # inside another trainer's environment; the two differ in the last digit
        return -NormalDist().inv_cdf((1.0 - level) / 2.0)
    return -float(ndtri((1.0 - level) / 2.0))


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
