"""What every estimate is, and the sums under it: equal in every bit for every order of the values."""

from __future__ import annotations

import hashlib
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


def z_quantile(level: float) -> float:
    """The same of a normal interval."""
    try:
        from scipy.special import ndtri
    except ImportError:  # inside another trainer's environment; the two differ in the last digit
        return -NormalDist().inv_cdf((1.0 - level) / 2.0)
    return -float(ndtri((1.0 - level) / 2.0))


def generator(purpose: str, *arrays: ArrayLike) -> np.random.Generator:
    """A generator seeded by a purpose and the data alone: the same data gives the same draws on every machine.

    Give the arrays in a canonical order, or the order of the rows becomes part of the seed.
    """
    digest = hashlib.sha256(purpose.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return np.random.Generator(np.random.Philox(int.from_bytes(digest.digest()[:8], "big")))
