"""The recommended set: by hand, and by simulation how often it leaves the best arm out and how large it is."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.not_shown_worse import Pick, bands, cheapest, covers, not_shown_worse
from tests.metrics.simulate_recommendation import simulate


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_an_arm_far_behind_leaves_and_a_close_one_stays() -> None:
    arms = {
        "a": by_seed(0.9, 0.91, 0.92, 0.9),
        "b": by_seed(0.905, 0.9, 0.925, 0.9),
        "c": by_seed(0.5, 0.52, 0.49, 0.5),
    }
    pick = not_shown_worse(arms)
    assert pick.arms == ("a", "b") and pick.beaten["c"][0] == "a"
    # One-sided at .05 / 2 with 3 degrees of freedom: t = 3.182 on differences .40 .39 .43 .40.
    lead = pick.beaten["c"][1]
    differences = np.array([0.4, 0.39, 0.43, 0.4])
    low = differences.mean() - 3.18244630528 * differences.std(ddof=1) / 2
    assert lead.low == pytest.approx(low) and lead.mean == pytest.approx(0.405)


def test_one_seed_shows_nothing() -> None:
    assert set(not_shown_worse({"a": by_seed(0.9), "b": by_seed(0.1)}).arms) == {"a", "b"}
    assert not_shown_worse({"a": by_seed(0.9), "b": {}}).arms == ("a",)


def test_a_crossing_cuts_the_rates() -> None:
    picks = [Pick(("a", "b"), {}), Pick(("b", "a"), {}), Pick(("c",), {}), Pick(("c", "b"), {})]
    found = bands(picks)
    assert [(band.places, band.arms) for band in found] == [((0, 1), ("a", "b")), ((2, 3), ("c",))]
    assert bands([]) == ()


def test_conditions_without_an_order_are_covered_by_the_arm_in_most_sets() -> None:
    picks = [Pick(("a", "b"), {}), Pick(("c",), {}), Pick(("b", "a"), {}), Pick(("b", "c"), {})]
    found = covers(picks)
    assert [(band.places, band.arms) for band in found] == [((0, 2, 3), ("b",)), ((1,), ("c",))]
    assert all(arm in picks[place].arms for band in found for place in band.places for arm in band.arms)
    assert covers([]) == ()


def test_the_cheapest_are_those_that_nothing_beats_in_both() -> None:
    kl, quality = {"a": 1.0, "b": 2.0, "c": 2.5}, {"a": 0.5, "b": 0.9, "c": 0.8}
    assert cheapest("abc", kl, quality) == ("a", "b")
    assert cheapest(["a", "d"], kl, quality) == ("a",)  # no KL is known of d


@pytest.mark.parametrize(("arms", "seeds", "shape"), [(6, 4, "normal"), (18, 4, "skewed"), (18, 10, "shares")])
def test_the_best_arm_is_left_out_in_at_most_five_percent(arms: int, seeds: int, shape: str) -> None:
    equal, behind = simulate(arms, seeds, shape, draws=400)
    assert equal.left_out <= 0.05 + 0.02  # three standard errors of 400 draws are .033
    assert behind.left_out <= 0.05 + 0.02
    assert behind.size < equal.size <= arms
