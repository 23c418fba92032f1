"""Frontiers by hand arithmetic, and their error rates by simulation: identical objectives are not called different."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from harness.metrics.frontier import KLS, Edge, Frontier, Point, Setting, at_best, choose, matched, middle
from harness.metrics.statistics import t_interval


def setting(beta: float | None = None, rate: float = 0.0) -> Setting:
    return (("beta", beta), ("learning_rate", rate))


def one(*points: tuple[float, float, float], seed: int = 0, rate: float = 0.0) -> Frontier:
    """A frontier of one seed from (beta, KL, quality)."""
    return Frontier({seed: {setting(beta, rate): Point(quality, kl) for beta, kl, quality in points}})


def test_quality_is_straight_in_log_kl_and_never_extrapolated() -> None:
    frontier = one((2, 1.0, 0.6), (0.5, 4.0, 0.8))
    found = frontier.at(2.0)  # the middle of 1 and 4 in log KL
    assert found is not None and found.values[0] == pytest.approx(0.7)
    assert frontier.at(0.9) is None and frontier.at(4.1) is None
    assert frontier.at(4.0) is not None, "the points themselves are reached"
    wide = one((2, 0.1, 0.6), (0.5, 1.0, 0.8), (0.1, 3.0, 0.9))
    assert wide.at(0.3) is None and wide.at(0.1) is not None and wide.at(2.0) is not None, "a factor of 10 is a gap"


def test_settings_of_equal_kl_are_averaged_and_unknown_kl_is_no_point() -> None:
    frontier = one((2, 1.0, 0.6), (1, 1.0, 0.8), (0.5, 4.0, 0.9), (0.1, math.nan, 0.0))
    found = frontier.at(1.0)
    assert found is not None and found.values[0] == pytest.approx(0.7)


def test_differences_only_where_both_reach_within_the_seed() -> None:
    """Seed 0 overlaps on [1, 2], seed 1 on [2, 3]: at 2 both, at 1 and 3 one each, elsewhere none."""
    a = Frontier({**one((1, 0.5, 0.5), (2, 2.0, 0.9)).points, **one((1, 2.0, 0.7), (2, 5.0, 0.9), seed=1).points})
    b = Frontier({**one((1, 1.0, 0.4), (2, 4.0, 0.8)).points, **one((1, 1.0, 0.4), (2, 3.0, 0.8), seed=1).points})
    found = {c.at: c.differences for c in matched(a, b)}
    assert {at: set(values) for at, values in found.items()} == {1.0: {0}, 1.5: {0}, 2.0: {0, 1}, 3.0: {1}}
    assert found[2.0][0] == pytest.approx(0.9 - 0.6), "log 2 is halfway from log 1 to log 4"
    assert found[2.0][1] == pytest.approx(0.7 - (0.4 + 0.4 * math.log(2) / math.log(3)))
    assert found[1.0][0] == pytest.approx(0.5 + 0.4 * math.log(2) / math.log(4) - 0.4)
    chosen = middle(matched(a, b))
    assert chosen is not None and chosen.at == 2.0 and chosen.seeds == 2


def test_an_objective_with_one_setting_is_matched_at_its_own_kl() -> None:
    a = Frontier({0: {setting(1.0): Point(0.9, 2.0)}, 1: {setting(1.0): Point(0.8, 9.0)}})
    b = Frontier({seed: one((1, 1.0, 0.4), (2, 4.0, 0.8)).points[0] for seed in (0, 1)})
    (found,) = matched(a, b)
    assert found.differences == {0: pytest.approx(0.3)} and found.seeds == 2, "KL 9 is beyond what b reaches"
    assert found.at == pytest.approx(5.5)


def test_the_frontier_is_the_best_line_and_says_how_many_it_was_chosen_among() -> None:
    """Two learning rates, one 0.2 better in every seed: it is the frontier, and the other one is no candidate."""
    seeds = range(6)
    noise = np.random.default_rng(0).normal(0, 0.01, 6)
    points = {
        seed: {
            setting(beta, rate): Point(0.5 + gain + 0.1 * beta + float(noise[seed]) * rate, beta)
            for rate, gain in ((0.0, 0.0), (1.0, 0.2))
            for beta in (1.0, 3.0)
        }
        for seed in seeds
    }
    frontier = Frontier(points)
    found = frontier.at(1.0)
    assert found is not None and found.values[0] == pytest.approx(0.8 + noise[0]) and found.among == 1
    assert frontier.best_setting == setting(3.0, 1.0)


def test_choosing_leaves_out_what_is_shown_worse_and_the_judged_seed() -> None:
    table = [
        {0: 0.9, 1: 0.5, 2: 0.5},
        {0: 0.55, 1: 0.6, 2: 0.6},
        {0: 0.1, 1: 0.11, 2: 0.12},
    ]
    found = choose(table)
    assert found is not None and found.row == 0 and found.values == table[0]
    assert found.among == 2, "row 1 is not shown worse than row 0, row 2 is"
    assert found.elsewhere == {0: 0.55, 1: 0.5, 2: 0.5}, "seeds 1 and 2 prefer row 1, which seed 0 is then judged by"


def grid(*values: Sequence[float], betas: Sequence[float] = (0.5, 1, 2)) -> Frontier:
    """A frontier from the values of each seed, one per beta."""
    return Frontier(
        {
            seed: {setting(beta): Point(q, 1.0) for beta, q in zip(betas, own, strict=True)}
            for seed, own in enumerate(values)
        }
    )


def test_a_best_beta_at_the_end_of_its_grid_says_which_end() -> None:
    assert grid((0.9, 0.8, 0.7), (0.92, 0.8, 0.7)).edge() == Edge("below", 0.5)
    assert grid((0.7, 0.8, 0.9), (0.7, 0.8, 0.9)).edge() == Edge("above", 2)
    assert grid((0.7, 0.8, 0.7), (0.7, 0.8, 0.7)).edge() is None
    assert grid((0.9,), betas=(0.5,)).edge() == Edge("only", 0.5)
    assert grid((0.805, 0.8, 0.7), (0.805, 0.8, 0.7)).edge() is None, "half a point: the curve is flat there"
    assert grid((0.815, 0.8, 0.7), (0.815, 0.8, 0.7)).edge() == Edge("below", 0.5)
    assert Frontier({0: {setting(None): Point(0.5)}}).edge() is None, "no beta, no grid of betas"
    assert Frontier({}).edge() is None


def test_the_end_of_a_grid_is_that_of_the_best_settings_own_line() -> None:
    """At learning rate 1 beta 1 is the highest tried; that rate 0 goes on to beta 5 does not help."""
    points = {setting(b, 0.0): Point(0.5, 1.0) for b in (0.5, 1.0, 5.0)} | {
        setting(0.5, 1.0): Point(0.6, 1.0), setting(1.0, 1.0): Point(0.9, 1.0)
    }  # fmt: skip
    assert Frontier({0: points}).edge() == Edge("above", 1.0)


def test_the_order_of_seeds_and_settings_changes_no_bit() -> None:
    rng = np.random.default_rng(1)
    points = {s: {setting(b): Point(float(rng.random()), float(b)) for b in (1.0, 2.0, 5.0)} for s in range(5)}
    turned = {s: dict(reversed(points[s].items())) for s in reversed(points)}
    a, b = Frontier(points), Frontier(turned)
    assert a.best == b.best and a.lines == b.lines and [a.at(kl) for kl in KLS] == [b.at(kl) for kl in KLS]
    assert matched(a, b) == matched(b, a) and all(set(c.differences.values()) == {0.0} for c in matched(a, b))


def simulated(rng: np.random.Generator, world: np.ndarray, rates: int, flat: bool) -> Frontier:
    """Betas x learning rates over seeds: quality saturates in KL (or is flat); noise per run, one part per seed."""
    points = {}
    for seed, common in enumerate(world):
        own = {}
        for rate in range(rates):
            for beta in (0.5, 1, 2, 5):
                kl = math.exp(math.log(2 / beta) + 0.6 * rate + rng.normal(0, 0.08))
                quality = (0.8 if flat else 1 - 0.4 * math.exp(-kl / 1.2) + 0.01 * rate) + common + rng.normal(0, 0.02)
                own[setting(beta, rate)] = Point(float(quality), kl)
        points[seed] = own
    return Frontier(points)


@pytest.mark.parametrize(("rates", "flat"), [(1, False), (2, False), (3, True)])
def test_identical_objectives_are_called_different_in_at_most_six_percent(rates: int, flat: bool) -> None:
    """A/A at matched KL and at each objective's best, with the correction that the report applies."""
    rng, draws = np.random.default_rng(7), 250
    alarms = {"kl": 0, "best": 0}
    for _ in range(draws):
        world = rng.normal(0, 0.03, 6)
        # The second objective has fewer settings: what many settings gain by their number alone must not show.
        a, b = simulated(rng, world, rates, flat), simulated(rng, world, 1 if flat else rates, flat)
        for name, found in (("kl", middle(matched(a, b))), ("best", at_best(a, b))):
            assert found is not None
            values = list(found.differences.values())
            alarms[name] += len(values) > 1 and t_interval(values, 1 - 0.05 / found.among).excludes(0.0)
    limit = 0.05 * draws + 2.33 * math.sqrt(0.05 * 0.95 * draws)  # the 99 % point of a count whose rate is 5 %
    assert max(alarms.values()) <= limit, alarms


def test_a_real_advantage_is_found() -> None:
    """4 points at every KL, noise 2: found in most draws at 8 seeds."""
    rng, hits = np.random.default_rng(3), 0
    for _ in range(60):
        world = rng.normal(0, 0.03, 8)
        a, b = simulated(rng, world + 0.04, 1, False), simulated(rng, world, 1, False)
        found = middle(matched(a, b))
        assert found is not None
        hits += t_interval(list(found.differences.values()), 1 - 0.05 / found.among).low > 0
    assert hits >= 48


def test_what_the_other_seeds_choose_has_no_optimism() -> None:
    """12 equal settings against one: the chosen one looks better by itself, not when the other seeds choose."""
    rng, chosen, elsewhere = np.random.default_rng(5), [], []
    for _ in range(300):
        table = [dict(enumerate(rng.normal(0, 1, 8).tolist())) for _ in range(12)]
        found = choose(table)
        assert found is not None
        chosen.append(np.mean(list(found.values.values())))
        elsewhere.append(np.mean(list(found.elsewhere.values())))
    assert np.mean(chosen) > 0.4 and abs(np.mean(elsewhere)) < 3 * np.std(elsewhere) / math.sqrt(300)
