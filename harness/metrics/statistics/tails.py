"""Tails of a fair coin and of Student's t in numpy: tests that also run inside another trainer's environment."""

from __future__ import annotations

import math

import numpy as np

from harness.metrics.statistics.intervals import Floats


def _coefficients(n: int) -> list[int]:
    """n over k for k = 0 .. n."""
    row = [1]
    for k in range(n):
        row.append(row[-1] * (n - k) // (k + 1))
    return row


def fair_coin(n: int) -> Floats:
    """P[Bin(n, 1/2) = k] for k = 0 .. n, `(n + 1,)`, each rounded once."""
    return np.array([count / 2**n for count in _coefficients(n)])


def fair_coin_tail(k: int, n: int) -> float:
    """P[Bin(n, 1/2) >= k], rounded once."""
    return float(sum(_coefficients(n)[k:]) / 2**n)


def student_tail(t: float, df: float) -> float:
    """P[T > t] of Student's t, to some 13 digits also far out: half the incomplete beta I_x(df / 2, 1 / 2)."""
    if t < 0:
        return 1.0 - student_tail(-t, df)
    a, b, x = df / 2, 0.5, df / (df + t * t)
    turned = x > (a + 1) / (a + b + 2)  # where the fraction converges slowly, the other tail's converges fast
    if turned:
        a, b, x = b, a, t * t / (df + t * t)
    if x == 0.0:
        return 0.5 if turned else 0.0
    scale = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    part = math.exp(scale) / a / _beta_fraction(a, b, x)
    return (1.0 - part) / 2 if turned else part / 2


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), from the inside out."""
    value = 1.0
    for m in range(200, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        value = 1 + even / value
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        value = 1 + odd / value
    return value
