"""Win rates by hand, the regression against a general optimiser, and what length and order do to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from harness.metrics.judge import RIDGE, Judged, bias_text, length_controlled, win_rate
from harness.metrics.statistics.clustered import clustered_interval


def test_counts_by_hand() -> None:
    found = win_rate(
        [
            Judged("a", 3, "first", "second"),  # wins both
            Judged("b", -1, "first", "first"),  # whoever is first
            Judged("c", 0, "tie", "first"),  # a tie and a loss
            Judged("d", 0, "tie", "tie", same=True),
            Judged("e", 9, "first", "unreadable"),
            Judged("f", 9, "first", None),
            Judged("g", 9, None, "unreadable"),
        ]
    )
    assert (found.prompts, found.same, found.unreadable, found.missing) == (4, 1, 1, 2)
    assert (found.wins, found.ties, found.losses) == (3, 3, 2)
    assert found.win_rate.mean == (2 + 1 + 0.5 + 1) / 8 and found.win_rate.n == 4
    assert found.first.mean == (1 + 0 + 1 + 1 + 0.5 + 1) / 6 and found.first.n == 3
    assert found.agree == 1 / 3 and found.longer == 0.5
    assert found.position_bias == "" and bias_text(found) == ""


def test_nothing_judged_is_nothing_known() -> None:
    found = win_rate([Judged("a", 1, None, None)])
    assert found.prompts == 0 and math.isnan(found.win_rate.mean) and found.length_controlled is None
    assert math.isnan(found.agree) and found.position_bias == ""


@pytest.mark.parametrize(("side", "word"), [("first", "first"), ("second", "second")])
def test_a_side_that_always_wins_is_named(side: str, word: str) -> None:
    found = win_rate([Judged(str(n), n, side, side) for n in range(30)])
    assert found.win_rate.mean == 0.5 and found.win_rate.low < 0.35 < 0.65 < found.win_rate.high
    assert found.position_bias == word and f"prefers the {word} answer in 100 %" in bias_text(found)


def test_the_regression_is_that_of_a_general_optimiser() -> None:
    rng = np.random.default_rng(1)
    longer = rng.normal(40, 100, 300)
    x = np.tanh(longer / longer.std())
    won = (rng.random((300, 2)) < 1 / (1 + np.exp(-(0.4 + 1.5 * x)))[:, None]).mean(1)

    def loss(beta: np.ndarray) -> float:
        z = beta[0] + beta[1] * x
        return float((np.logaddexp(0, z) - won * z).sum() + RIDGE / 2 * beta @ beta)

    theta = minimize(loss, np.zeros(2), tol=1e-12).x[0]
    found = length_controlled(won, longer, [str(n) for n in range(300)])
    assert found is not None and found.mean == pytest.approx(1 / (1 + math.exp(-theta)), abs=1e-6)
    assert found.low < found.mean < found.high


def test_answers_that_win_by_length_alone_are_equal_at_equal_length() -> None:
    rng = np.random.default_rng(2)
    estimates, covered, raw = [], 0, []
    for _ in range(400):
        longer = rng.normal(60, 100, 150)
        p = 1 / (1 + np.exp(-2 * np.tanh(longer / 100)))
        won = (rng.random(150) < p).astype(float)
        found = length_controlled(won, longer, [str(n) for n in range(150)])
        assert found is not None
        estimates.append(found.mean)
        covered += found.low <= 0.5 <= found.high
        raw.append(clustered_interval(won, range(150), share=True).mean)
    assert np.mean(raw) > 0.62 and abs(np.mean(estimates) - 0.5) < 0.01
    assert 0.92 <= covered / 400 <= 0.98


def test_repeated_prompts_count_once() -> None:
    rng = np.random.default_rng(3)
    longer, won = rng.normal(0, 50, 40), rng.integers(0, 3, 40) / 2
    once = length_controlled(won, longer, [str(n) for n in range(40)])
    twice = length_controlled(np.repeat(won, 4), np.repeat(longer, 4), [str(n) for n in np.repeat(range(40), 4)])
    assert once is not None and twice is not None
    assert twice.n == once.n == 40 and twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.02)


def test_what_cannot_be_told_from_length_is_unknown() -> None:
    names = [str(n) for n in range(10)]
    assert length_controlled(np.ones(10), np.arange(10), names) is None
    assert length_controlled(np.arange(10) % 2, np.full(10, 7), names) is None
    assert length_controlled([0, 1], [1, 2], ["a", "b"]) is None
