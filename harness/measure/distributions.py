"""Measures of whole distributions: shift, area under the curve, calibration, KL of finite distributions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from harness.measure.records import Array, Floats


def mean(values: Floats) -> float:
    """Mean of (n,); NaN for none."""
    return float(values.mean()) if values.size else math.nan


def w1(first: Floats, second: Floats) -> float:
    """Wasserstein-1 distance of two samples of equal size: mean |difference of order statistics|, in their unit."""
    return float(np.abs(np.sort(first) - np.sort(second)).mean()) if first.size else math.nan


def auc(scores: Floats, positive: Array) -> float:
    """P(score of a positive > score of a negative) + half the ties, in [0, 1]; NaN where one class is empty."""
    positive = np.asarray(positive, dtype=bool)
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        return math.nan
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def both_ways_auc(margin: Floats) -> float:
    """AUC over pairs in both orientations: a pair scores `margin` as labelled and -margin the other way round."""
    labels = np.concatenate([np.ones(margin.size), np.zeros(margin.size)])
    return auc(np.concatenate([margin, -margin]), labels)


def calibration_error(probability: Floats, target: Floats, bins: int = 10) -> float:
    """Expected calibration error: sum over equal bins of share * |mean probability - mean target|, in [0, 1]."""
    if not probability.size:
        return math.nan
    index = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=probability - target, minlength=bins)
    return float(np.abs(gaps).sum() / probability.size)


def correlation(first: Floats, second: Floats) -> float:
    """Pearson correlation in [-1, 1]; NaN below two pairs or where one side is constant."""
    if first.size < 2 or first.min() == first.max() or second.min() == second.max():
        return math.nan
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))


def sigmoid(values: ArrayLike) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    x = np.asarray(values, dtype=np.float64)
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)
