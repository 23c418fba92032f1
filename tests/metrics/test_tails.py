"""The tails that need no scipy, against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.metrics.statistics.intervals import z_quantile
from harness.metrics.statistics.tails import fair_coin, fair_coin_tail, student_tail


@pytest.mark.parametrize("df", [1, 2, 3, 7, 63, 255, 20_000])
def test_student_tail(df: int) -> None:
    for t in (-30.0, -3.0, -1e-3, 0.0, 0.01, 0.5, 1.0, 1.96, 3.0, 10.0, 30.0):
        assert math.isclose(student_tail(t, df), stats.t.sf(t, df), rel_tol=1e-10), t
    assert student_tail(math.inf, df) == 0.0


@pytest.mark.parametrize("n", [0, 1, 2, 9, 64, 1000])
def test_fair_coin(n: int) -> None:
    np.testing.assert_allclose(fair_coin(n), stats.binom.pmf(np.arange(n + 1), n, 0.5), rtol=1e-10)
    assert fair_coin_tail(0, n) == 1.0
    for k in (1, n // 2, n):
        assert math.isclose(fair_coin_tail(k, n), stats.binom.sf(k - 1, n, 0.5), rel_tol=1e-10)


def test_normal_quantile_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = (0.5, 0.9, 0.95, 0.999, 1 - 1e-9)
    with_scipy = [z_quantile(level) for level in levels]
    monkeypatch.setitem(__import__("sys").modules, "scipy.special", None)
    assert [z_quantile(level) for level in levels] == pytest.approx(with_scipy, rel=1e-12)
