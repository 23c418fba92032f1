"""The A/A check on simulated replicas: nothing is found where nothing is, and a planted difference would be."""

from __future__ import annotations

import random

import numpy as np
import pytest

from harness.metrics.aa import AACounts, aa_check, spread_of_replicas


def replicas(rng, seeds=10, count=4, noise=0.02, shift=0.0):
    """Seeds differ by .05, replicas of a seed by `noise`; `shift` is added to replica 0 of every seed."""
    base = rng.normal(0.7, 0.05, seeds)
    return {
        (s, r): float(base[s] + rng.normal(0, noise) + shift * (r == 0)) for s in range(seeds) for r in range(count)
    }


def test_false_alarms_stay_at_the_level():
    """Twenty cells of 40 replicas: margin 0 and no item level, so that the t interval stands alone."""
    rng = np.random.default_rng(11)
    shares = [aa_check(replicas(rng), draws=300).share for _ in range(20)]
    assert 0.02 <= np.mean(shares) <= 0.06  # and the check is not simply blind


def test_the_verdicts_of_a_report_are_stricter():
    values = {key: min(max(value, 0.0), 1.0) for key, value in replicas(np.random.default_rng(2)).items()}
    plain, as_reported = aa_check(values), aa_check(values, margin=0.01, items=256)
    assert as_reported.better + as_reported.worse <= plain.better + plain.worse
    assert as_reported.passed and as_reported.comparisons == 1000 and as_reported.stored == 40


def test_a_broken_order_stream_would_be_found():
    """With two replicas a seed, one of them shifted, every other sign pattern is lost: the counts show it."""
    values = replicas(np.random.default_rng(3), seeds=6, count=2, noise=1e-4, shift=0.5)
    found = aa_check(values)
    assert found.better + found.worse > 0.02 * found.comparisons  # all signs equal: 2 of 2**6
    assert AACounts(1000, 6, 12, 30, 30).share == 0.06 and not AACounts(1000, 6, 12, 30, 30).passed


def test_row_order_and_repetition_change_nothing():
    values = replicas(np.random.default_rng(4))
    items = list(values.items())
    random.Random(0).shuffle(items)
    assert aa_check(dict(items), n=7, draws=50) == aa_check(values, n=7, draws=50)


def test_too_few_seeds_are_refused():
    few = replicas(np.random.default_rng(5), seeds=5)
    with pytest.raises(ValueError, match="seeds of two replicas"):
        aa_check(few)
    with pytest.raises(ValueError, match="got 12"):
        aa_check(replicas(np.random.default_rng(5)), n=12)


def test_spread_of_replicas_is_the_pooled_deviation():
    assert spread_of_replicas({(0, 0): 1.0, (0, 1): 3.0, (1, 0): 5.0, (1, 1): 5.0, (2, 0): 9.0}) == pytest.approx(1.0)
    assert np.isnan(spread_of_replicas({(0, 0): 1.0, (1, 0): 2.0}))
