"""Whether a choice holds at every level of an axis: by hand, and how often an axis is named that decides nothing."""

from __future__ import annotations

import numpy as np

from harness.metrics.levels import Across, Level, across, at_level
from harness.metrics.not_shown_worse import Pick, one_sided
from harness.metrics.statistics import Estimate


def level(kept: str, beaten: str = "", seeds: int = 6) -> Level[str]:
    ahead = ((kept[0], ""), Estimate(seeds, 0.1, 0.05, 0.15))
    return Level(Pick(tuple((name, "") for name in kept), {(name, ""): ahead for name in beaten}), seeds)


def test_a_choice_holds_where_the_same_objectives_are_kept_and_shown_worse() -> None:
    assert across([level("ab", "c"), level("ba", "c")], "a") is Across.HOLDS
    assert across([level("ab", "c"), level("a", "bc")], "a") is Across.UNTOLD, "b is no difference of the levels"
    assert across([level("abc"), level("abc")], "a") is Across.UNTOLD, "nothing is shown anywhere"
    assert across([level("ab", "c", 5), level("ab", "c")], "a") is Across.UNTOLD, "no verdict below 6 seeds"


def test_an_axis_decides_where_both_sides_are_shown() -> None:
    assert across([level("a", "b"), level("b", "a"), level("ab")], "a") is Across.DEPENDS
    assert across([level("ab"), level("b", "a")], "a") is Across.UNTOLD, "at the first level neither is shown worse"
    assert across([level("a", "c"), level("b", "ac")], "a") is Across.UNTOLD, "it traded places with nobody"


def test_the_error_of_an_axis_that_decides_nothing_is_kept() -> None:
    rng = np.random.default_rng(5)
    named, left_out = 0, 0
    for _ in range(300):
        levels = []
        for _ in range(2):
            table = {(name, beta): dict(enumerate(rng.normal(0.0, 1.0, 6))) for name in "ab" for beta in range(3)}
            lead = lambda a, b, family, own=table: one_sided(own[a], own[b], family)  # noqa: E731
            levels.append(at_level(table, lead, levels=2))
        named += across(levels, "a") is Across.DEPENDS
        left_out += any(("a", 0) not in one.pick.arms for one in levels)
    assert named == 0
    assert left_out <= 0.05 * 300 + 3 * (0.05 * 0.95 * 300) ** 0.5, "an arm that is as good as any, at any level"
