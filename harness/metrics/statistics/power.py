"""What a comparison could have found: power of the paired t test, minimum detectable effects over seeds and items."""

from __future__ import annotations

import math
from functools import lru_cache

from harness.metrics.statistics.intervals import t_quantile, z_quantile


def t_test_power(effect: float, n: int, comparisons: int = 1, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test for a true mean of `effect` standard deviations (noncentral t)."""
    from scipy.special import nctdtr

    critical, shift = t_quantile(1 - alpha / comparisons, n - 1), effect * math.sqrt(n)
    # The wrong tail is below 1e-9 once the right one matters, and the noncentral cdf is unstable that far out.
    wrong_tail = float(nctdtr(n - 1, shift, -critical)) if shift < 3 else 0.0
    return 1.0 - float(nctdtr(n - 1, shift, critical)) + wrong_tail


def minimum_detectable_effect(
    sd_difference: float, n: int, comparisons: int = 1, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest true mean difference a two-sided paired t test on `n` seeds finds with probability `power`.

    In the unit of `sd_difference`, the standard deviation of the paired differences; Bonferroni over `comparisons`.
    NaN for n < 2, where no test exists.
    """
    if comparisons < 1 or not 0 < alpha < power < 1:
        raise ValueError("needs comparisons >= 1 and 0 < alpha < power < 1")
    return math.nan if n < 2 else sd_difference * _standardised(n, comparisons, power, alpha)


@lru_cache(maxsize=1024)
def _standardised(n: int, comparisons: int, power: float, alpha: float) -> float:
    low, high = 0.0, 1.0
    while t_test_power(high, n, comparisons, alpha) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if t_test_power(middle, n, comparisons, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def item_detectable_effect(
    discordant: float, items: int, comparisons: int = 1, power: float = 0.8, alpha: float = 0.05
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
