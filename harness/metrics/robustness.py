"""Where a method breaks: the corruption rate up to which it beats its reference, and the area under its curve.

Curves are known at a few rates, and nothing is assumed between them; the area joins them by straight lines, per seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.statistics import Estimate, cell_estimate, t_interval
from harness.metrics.statistics.intervals import finite

ENOUGH_RATES = 5  # below that, straight lines between the rates say too little of where a curve crosses 0


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Where the mean difference to a bar falls to 0, between tested rates, with a confidence set's ends.

    `last_above`, `first_below`: the tested rates between which the mean first falls to 0 (NaN: it is not above at the
    first rate, not below at any). `low`: the largest tested rate such that there and at every lower one the difference
    is significantly above 0, `high`: the smallest such that there and at every higher one it is significantly below
    (NaN: none). `rate`: where the straight line between the two means crosses 0, NaN below `ENOUGH_RATES` rates. `n`:
    the fewest seeds of a rate; below 2 there is no set.
    """

    last_above: float
    first_below: float
    low: float
    high: float
    rate: float
    n: int


def breakdown_point(rates: Sequence[float], above: Sequence[Estimate]) -> Breakdown:
    """The breakdown point from the difference to the bar at each of `rates`, ascending, each with its 95 % interval.

    Closed testing along the tested rates: going up, the first interval that does not lie above 0 ends the climb to
    `low`; going down from the top, the first that does not lie below 0 ends the descent to `high`. Whatever the shape
    of a curve that falls through 0 once, `low` lies beyond its crossing only if the first tested rate after it is
    falsely called above 0, which has probability at most .025, and `high` likewise: nothing is assumed between rates,
    and no further correction is needed (fixed-sequence testing, Maurer, Hothorn and Lehmacher 1995). Raises ValueError
    on fewer than 2 rates, on rates that do not ascend, on another number of estimates.
    """
    x = finite(rates)
    if x.size < 2 or x.size != len(above) or not (np.diff(x) > 0).all():
        raise ValueError(f"needs at least 2 rates that ascend and an estimate for each, got {rates} and {len(above)}")
    mean = finite([one.mean for one in above])
    fallen = np.flatnonzero(mean <= 0)
    at = int(fallen[0]) if fallen.size else x.size
    inside = 0 < at < x.size and x.size >= ENOUGH_RATES
    share = mean[at - 1] / (mean[at - 1] - mean[at]) if inside else math.nan
    climb = list(takewhile(lambda pair: pair[1].low > 0, zip(rates, above, strict=True)))
    descent = list(takewhile(lambda pair: pair[1].high < 0, reversed(list(zip(rates, above, strict=True)))))
    return Breakdown(
        last_above=float(x[at - 1]) if at > 0 else math.nan,
        first_below=float(x[at]) if at < x.size else math.nan,
        low=float(climb[-1][0]) if climb else math.nan,
        high=float(descent[-1][0]) if descent else math.nan,
        rate=float(x[at - 1] + share * (x[at] - x[at - 1])) if inside else math.nan,
        n=min(one.n for one in above),
    )


def breakdown_text(point: Breakdown) -> str:
    """`between 0.2 and 0.4`, `above 0.4`, `below 0`: what is shown, and where the mean falls if that is elsewhere."""
    mean = _between(point.last_above, point.first_below) if math.isnan(point.rate) else f"about {point.rate:.2g}"
    if point.n < 2:
        return f"{mean} (one seed)"
    shown = _between(point.low, point.high) or "not shown"
    return shown if shown == mean else f"{shown} (mean: {mean})"


def _between(low: float, high: float) -> str:
    if math.isnan(low):
        return "" if math.isnan(high) else f"below {high:.2g}"
    return f"above {low:.2g}" if math.isnan(high) else f"between {low:.2g} and {high:.2g}"


def area_under_curve(
    rates: Sequence[float], values: ArrayLike, items: int | None = None, share: bool = True, level: float = 0.95
) -> Estimate:
    """Mean of a measure over the rates, by trapezoids per seed: `values` (k rates, n seeds), in the measure's unit.

    The area divided by the range of the rates, so a flat curve's area is its height. t interval over seeds; a share's
    is never narrower than on the `items` of one seed (the rates share them).
    """
    x, table = finite(rates), np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != x.size or x.size < 2 or table.shape[1] < 1:
        raise ValueError(f"needs (rates, seeds) values of at least 2 rates, got {table.shape} for {x.size} rates")
    if not (np.diff(x) > 0).all():
        raise ValueError("rates must ascend, each once")
    finite(table)
    weights = np.zeros(x.size)
    weights[:-1] += np.diff(x) / 2
    weights[1:] += np.diff(x) / 2
    areas = [math.fsum(weights * column) / (x[-1] - x[0]) for column in table.T]
    return cell_estimate(areas, items, share, level) if share else t_interval(areas, level)
