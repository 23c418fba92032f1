"""Resampling: bootstrap intervals within strata, and the interquartile mean over tasks.

Every draw is seeded by the data itself, in a canonical order: the same values give the same interval on every machine
and in every order of the rows. Below 20 units a percentile or BCa interval covers too little and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.statistics.estimate import Estimate, Floats, finite, generator
from harness.metrics.statistics.intervals import by_stratum, stratified_t_interval, t_interval

DRAWS = 4000
MIN_PERCENTILE = 20  # units below which percentile and BCa intervals are refused
MIN_STUDENTISED = 5  # below, resamples without any spread are so common that the interval has no ends
MIN_TASKS = 3  # over one task's five runs the interquartile mean is the mean of the middle three


def mean_interval(values: ArrayLike, strata: ArrayLike | None = None, level: float = 0.95) -> Estimate:
    """The default interval of a mean of `values` (n,): t; over several `strata` t below 20 units, bootstrap from there.

    Over one stratum t is used at every n: its coverage at n >= 20 is that of the bootstrap, and a cell of nearly
    saturated accuracies, whose resamples have no spread, has no studentised one.
    """
    if strata is None or np.unique(np.asarray(strata)).size == 1:
        return t_interval(values, level)
    if finite(values).size < MIN_PERCENTILE:
        return stratified_t_interval(values, strata, level)
    return bootstrap_interval(values, strata, "studentised", level)


def bootstrap_interval(
    values: ArrayLike,
    strata: ArrayLike | None = None,
    method: str = "studentised",
    level: float = 0.95,
    draws: int = DRAWS,
) -> Estimate:
    """Bootstrap interval of the mean of `values` (n,), units drawn with replacement within each stratum.

    `studentised` (Efron and Tibshirani 1993, ch. 12.5; from 5 units on), `bca` (ch. 14.3) and `percentile` (ch. 13.3),
    the latter two from 20 units on. Strata keep their sizes; what lies between them adds no width. Raises ValueError
    on too few units, a stratum with a single one, an unknown method, or too few draws for the level.
    """
    groups = [np.sort(finite(values))] if strata is None else by_stratum(values, strata)
    n = sum(group.size for group in groups)
    _check(method, n, level, draws)
    mean = math.fsum(np.concatenate(groups)) / n
    if all(group[0] == group[-1] for group in groups):
        return Estimate(n, mean, mean, mean)
    drawn = _resample(groups, draws, generator(f"bootstrap {method}", *groups))
    tail = (1.0 - level) / 2
    if method == "studentised":
        low, high = _studentised(groups, drawn, mean, tail)
    elif method == "bca":
        influence = np.concatenate([(group - group.mean()) / max(group.size - 1, 1) for group in groups])
        low, high = _bca(drawn.mean(axis=1), mean, influence, tail)
    else:
        low, high = np.quantile(drawn.mean(axis=1), [tail, 1 - tail])
    return Estimate(n, mean, float(low), float(high))


def _check(method: str, n: int, level: float, draws: int) -> None:
    least = {"studentised": MIN_STUDENTISED, "bca": MIN_PERCENTILE, "percentile": MIN_PERCENTILE}
    if method not in least:
        raise ValueError(f"unknown bootstrap method {method!r}; expected one of {', '.join(least)}")
    if n < least[method]:
        raise ValueError(f"a {method} bootstrap needs at least {least[method]} units, got {n}: use the t interval")
    if draws * (1.0 - level) / 2 < 10:
        raise ValueError(f"{draws} draws leave fewer than 10 beyond each end at level {level}; take more draws")


def _resample(groups: Sequence[Floats], draws: int, rng: np.random.Generator) -> Floats:
    """`(draws, n)`: each row holds every stratum, its units drawn with replacement."""
    parts = [group[rng.integers(0, group.size, (draws, group.size))] for group in groups]
    return np.concatenate(parts, axis=1)


def _studentised(groups: Sequence[Floats], drawn: Floats, mean: float, tail: float) -> tuple[float, float]:
    """Ends from the distribution of (mean* - mean) / error*, each resample with its own standard error."""
    error, drawn_error = 0.0, np.zeros(drawn.shape[0])
    start = 0
    for group in groups:
        part = drawn[:, start : start + group.size]
        start += group.size
        weight = group.size**2 / drawn.shape[1] ** 2 / group.size
        error += weight * float(group.var(ddof=1))
        drawn_error += weight * part.var(axis=1, ddof=1)
    moved = drawn.mean(axis=1) - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = moved / np.sqrt(drawn_error)
    ratio = np.where(drawn_error > 0, ratio, np.where(moved == 0, 0.0, np.copysign(np.inf, moved)))
    low, high = np.quantile(ratio, [tail, 1 - tail], method="higher")
    return mean - float(high) * math.sqrt(error), mean - float(low) * math.sqrt(error)


def _bca(drawn: Floats, value: float, influence: Floats, tail: float) -> tuple[float, float]:
    """Bias-corrected and accelerated ends: percentiles moved by the median bias and by the skewness of `influence`."""
    from scipy.special import ndtr, ndtri

    below = (float(np.mean(drawn < value)) + float(np.mean(drawn <= value))) / 2
    bias = float(ndtri(min(max(below, 1 / drawn.size), 1 - 1 / drawn.size)))
    spread = float((influence**2).sum())
    skew = float((influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    ends = []
    for z in (float(ndtri(tail)), -float(ndtri(tail))):
        moved = bias + (bias + z) / (1 - skew * (bias + z))
        ends.append(float(np.quantile(drawn, float(ndtr(moved)))))
    return ends[0], ends[1]


def interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half of the last axis, floor(n / 4) values cut at each end (Agarwal et al. 2021)."""
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))


def iqm_interval(values: ArrayLike, tasks: ArrayLike, level: float = 0.95, draws: int = DRAWS) -> Estimate:
    """Interquartile mean pooled over `tasks` (n,) with the percentile interval of a bootstrap within tasks (rliable).

    Raises ValueError for fewer than 3 tasks or 20 runs in all: over one task's seeds it hides what went wrong.
    """
    names = np.unique(np.asarray(tasks).ravel())
    if names.size < MIN_TASKS:
        raise ValueError(f"an interquartile mean pools at least {MIN_TASKS} tasks, got {names.size}: use the mean")
    groups = by_stratum(values, tasks)
    n = sum(group.size for group in groups)
    _check("percentile", n, level, draws)
    drawn = interquartile_mean(_resample(groups, draws, generator("iqm", *groups)))
    tail = (1.0 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(n, float(interquartile_mean(np.concatenate(groups))), float(low), float(high))
