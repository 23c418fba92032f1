"""What a comparison could have found: power of the paired t test, minimum detectable effects over seeds and items."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from harness.metrics.statistics.intervals import Floats, t_quantile, z_quantile

NODES = 200  # of the quadrature over the estimated error: power to some .002


def t_test_power(effect: float, n: int, comparisons: int = 1, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test for a true mean of `effect` standard deviations (noncentral t)."""
    return _noncentral(effect * math.sqrt(n), n - 1, comparisons, alpha)


def _noncentral(shift: float, df: float, comparisons: int, alpha: float) -> float:
    from scipy.special import nctdtr

    critical = t_quantile(1 - alpha / comparisons, df)
    # The wrong tail is below 1e-9 once the right one matters, and the noncentral cdf is unstable that far out.
    wrong_tail = float(nctdtr(df, shift, -critical)) if shift < 3 else 0.0
    return 1.0 - float(nctdtr(df, shift, critical)) + wrong_tail


def minimum_detectable_effect(
    sd_difference: float, n: int, comparisons: int = 1, power: float = 0.8, alpha: float = 0.05, margin: float = 0.0
) -> float:
    """Smallest true mean difference a two-sided paired t test on `n` seeds finds with probability `power`.

    In the unit of `sd_difference`, the standard deviation of the paired differences; Bonferroni over `comparisons`.
    NaN for n < 2, where no test exists. `margin`: as in `detectable_effect`.
    """
    return (
        math.nan if n < 2 else detectable_effect(sd_difference / math.sqrt(n), n - 1, comparisons, power, alpha, margin)
    )


def detectable_effect(
    error: float,
    df: float,
    comparisons: int = 1,
    power: float = 0.8,
    alpha: float = 0.05,
    margin: float = 0.0,
    added: Callable[[float], float] | None = None,
) -> float:
    """Smallest true mean found with probability `power` by a t test with standard error `error` on `df` degrees.

    Found: the interval at 1 - alpha / comparisons excludes 0 and the mean is at least `margin`. In the unit of `error`.
    `added`: the variance that a true mean of some size brings along.
    """
    if comparisons < 1 or not 0 < alpha < power < 1:
        raise ValueError("needs comparisons >= 1 and 0 < alpha < power < 1")
    if added is None:
        return error * _standardised(df, comparisons, power, alpha, margin / error) if error else margin

    def found(effect: float) -> float:
        grown = math.sqrt(error**2 + added(effect))
        if grown == 0.0:
            return float(effect >= margin)
        return _found(effect / grown, df, comparisons, alpha, margin / grown)

    return _smallest(found, power, error or margin or 1.0)


def unbiased_error(error: float, df: float) -> float:
    """An estimated standard error without its bias: divided by the mean of chi / sqrt(df), .92 on 3 degrees."""
    return error / math.sqrt(2 / df) * math.exp(math.lgamma(df / 2) - math.lgamma((df + 1) / 2))


@lru_cache(maxsize=4096)
def _standardised(df: float, comparisons: int, power: float, alpha: float, margin: float) -> float:
    """`detectable_effect` in standard errors."""
    return _smallest(lambda shift: _found(shift, df, comparisons, alpha, margin), power)


def _found(shift: float, df: float, comparisons: int, alpha: float, margin: float) -> float:
    """Probability that a true mean of `shift` standard errors is found; `margin` in standard errors."""
    if margin == 0.0:
        return _noncentral(shift, df, comparisons, alpha)
    from scipy.special import ndtr

    # The estimated error varies as chi; given it, the mean must pass the larger of the two bars.
    bars = np.maximum(margin, _bars(df, comparisons, alpha))
    return float(ndtr(shift - bars).sum() / NODES)


@lru_cache(maxsize=256)
def _bars(df: float, comparisons: int, alpha: float) -> Floats:
    """The half-width of an interval at equally probable estimated errors, in true ones."""
    return t_quantile(1 - alpha / comparisons, df) * _error_quantiles(df)


@lru_cache(maxsize=64)
def _error_quantiles(df: float) -> Floats:
    """Quantiles of the estimated standard error, in true ones, at the midpoints of equal probabilities."""
    from scipy.special import chdtri

    return np.asarray(np.sqrt(chdtri(df, (np.arange(NODES) + 0.5) / NODES) / df), dtype=np.float64)


def _smallest(found: Callable[[float], float], power: float, unit: float = 1.0) -> float:
    """The smallest effect, in steps that begin at `unit`, that is found with probability `power`."""
    low, high = 0.0, unit
    while found(high) < power:
        low, high = high, 2 * high
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) < power else (low, middle)
    return high


def item_detectable_effect(
    discordant: float, items: float, comparisons: int = 1, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest difference of two shares of the same `items` that their item-level interval excludes with `power`.

    `discordant`: share of items on which the two methods disagree. d sqrt(items) = (z_alpha + z_power) sqrt(discordant)
    (Miettinen 1968, first order); a difference of d needs at least d discordant items, which bounds it from below by
    (z_alpha + z_power)^2 / items. A share, as the difference is.
    """
    if not 0 <= discordant <= 1 or items < 1:
        raise ValueError(f"needs a share of discordant items and at least one item, got {discordant} of {items}")
    z = z_quantile(1 - alpha / comparisons) + z_quantile(2 * power - 1)
    return min(1.0, max(z * math.sqrt(discordant / items), z * z / items))
