"""Where a method breaks: the corruption rate up to which it beats its reference, and the area under its curve.

Curves are known at a few rates and joined by straight lines, per seed. Every interval is over seeds, all rates of a
seed together, so a curve's own correlation over rates is used and never assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.statistics import Estimate, cell_estimate, t_interval
from harness.metrics.statistics.intervals import Floats, finite, t_quantile

STEPS = 200  # points between two rates at which the interpolated test is made


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The rate at which the mean difference falls to 0, with a confidence set's ends, in the unit of the rates.

    `low`: the largest rate such that at it and at every lower one the difference is significantly above 0 (NaN: not
    even at the first rate). `high`: the smallest rate such that at every higher one it is significantly below 0 (NaN:
    not even at the last). `rate` is NaN where the mean is above 0 at every rate (`beats_all`: the breakdown lies beyond
    the last rate tried) or not above 0 at the first (`beats_none`). `n` seeds; below 2 there is no set.
    """

    rate: float
    low: float
    high: float
    beats_all: bool
    beats_none: bool
    n: int


def breakdown_point(
    rates: Sequence[float], differences: ArrayLike, level: float = 0.95, floor: ArrayLike | None = None
) -> Breakdown:
    """The breakdown point of paired `differences` (k rates, n seeds), method minus reference, `rates` ascending.

    Closed testing by going up the rates: at each rate, and at each point between two, a one-sided paired t test of the
    (interpolated) difference at (1 - level) / 2, and the first that does not reject ends the climb; `high` likewise
    from the top down. A false claim of `low` needs a false rejection at the true breakdown point, of `high` likewise:
    each has probability at most (1 - level) / 2 over all rates at once, with no further correction (fixed-sequence
    testing, Maurer, Hothorn and Lehmacher 1995; the set is Fieller's where the curve crosses once). With a curve that
    crosses 0 once and is straight between rates, [low, high] covers the crossing with probability `level`; an open
    end (NaN) is read as the end of the line. `floor` (k,): least half-width of the difference at each rate, e.g. its
    item-level one. Raises ValueError on rates that do not ascend, shapes that do not match, non-finite values.
    """
    x, table = _curve(rates, differences)
    n = table.shape[1]
    mean = np.array([math.fsum(row) / n for row in table])
    estimate, beats_all, beats_none = _crossing(x, mean)
    if n < 2:
        return Breakdown(estimate, math.nan, math.nan, beats_all, beats_none, n)
    fine, centre, half = _band(x, table, mean, level)
    if floor is not None:
        half = np.maximum(half, np.interp(fine, x, finite(floor)))
    low = _last_above(fine, centre - half)
    high = _last_above(-fine[::-1], (-centre - half)[::-1])
    return Breakdown(estimate, low, -high, beats_all, beats_none, n)


def _curve(rates: Sequence[float], values: ArrayLike) -> tuple[Floats, Floats]:
    x, table = finite(rates), np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != x.size or x.size < 2 or table.shape[1] < 1:
        raise ValueError(f"needs (rates, seeds) values of at least 2 rates, got {table.shape} for {x.size} rates")
    if not (np.diff(x) > 0).all():
        raise ValueError("rates must ascend, each once")
    finite(table)
    return x, table


def _crossing(x: Floats, mean: Floats) -> tuple[float, bool, bool]:
    """Where a straight-line curve first falls to 0; NaN, with its reason, where it is above everywhere or nowhere."""
    below = np.flatnonzero(mean <= 0)
    if not below.size:
        return math.nan, True, False
    at = int(below[0])
    if at == 0:
        return math.nan, False, True
    left, right = mean[at - 1], mean[at]
    return float(x[at - 1] + (x[at] - x[at - 1]) * left / (left - right)), False, False


def _band(x: Floats, table: Floats, mean: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    """A fine grid over the rates, the mean on it, and the t half-width there: the curve of each seed is interpolated,
    so between two rates the variance follows from theirs and their covariance."""
    n = table.shape[1]
    steps = np.linspace(0, 1, STEPS, endpoint=False)
    segment = np.repeat(np.arange(x.size - 1), STEPS)
    right = np.tile(steps, x.size - 1)
    segment, right = np.append(segment, x.size - 2), np.append(right, 1.0)
    left = 1 - right
    centred = table - mean[:, None]
    variance = np.array([math.fsum(row**2) for row in centred]) / (n - 1) / n
    covariance = np.array([math.fsum(a * b) for a, b in pairwise(centred)]) / (n - 1) / n
    between = left**2 * variance[segment] + right**2 * variance[segment + 1] + 2 * left * right * covariance[segment]
    fine = left * x[segment] + right * x[segment + 1]
    half = t_quantile(level, n - 1) * np.sqrt(np.maximum(between, 0.0))
    return fine, left * mean[segment] + right * mean[segment + 1], half


def _last_above(x: Floats, bound: Floats) -> float:
    """The x up to which `bound` stays above 0 without a break; NaN where it is not above at the first."""
    failed = np.flatnonzero(bound <= 0)
    at = int(failed[0]) if failed.size else x.size
    if at == 0:
        return math.nan
    if at == x.size:
        return float(x[-1])
    return float(x[at - 1] + (x[at] - x[at - 1]) * bound[at - 1] / (bound[at - 1] - bound[at]))


def area_under_curve(
    rates: Sequence[float], values: ArrayLike, items: int | None = None, share: bool = True, level: float = 0.95
) -> Estimate:
    """Mean of a measure over the rates, by trapezoids per seed: `values` (k rates, n seeds), in the measure's unit.

    The area divided by the range of the rates, so a flat curve's area is its height. t interval over seeds; a share's
    is never narrower than on the `items` of one seed (the rates share them).
    """
    x, table = _curve(rates, values)
    weights = np.zeros(x.size)
    weights[:-1] += np.diff(x) / 2
    weights[1:] += np.diff(x) / 2
    areas = [math.fsum(weights * column) / (x[-1] - x[0]) for column in table.T]
    return cell_estimate(areas, items, share, level) if share else t_interval(areas, level)
