"""Seeds in rounds: levels of the looks, when a comparison is settled, and simulated error and power."""

from __future__ import annotations

import pytest

from harness.metrics.statistics import is_settled, judge, look_alpha
from harness.types import SeedRounds
from tests.metrics.rounds_simulated import ROUNDS, simulate


def judged(differences, family=10, margin=0.01):
    seeds = len(differences)
    alpha = look_alpha(ROUNDS, seeds)
    return judge(dict(enumerate(differences)), family=family, planned=seeds, margin=margin, alpha=alpha)


def test_the_looks_share_the_error_and_the_last_keeps_most_of_it():
    assert ROUNDS.looks == (4, 6, 8, 10, 12) and SeedRounds(4, 7).looks == (4, 6, 7)
    levels = [look_alpha(ROUNDS, look) for look in ROUNDS.looks]
    assert sum(levels) == pytest.approx(0.05) and levels == sorted(levels)
    assert levels[0] == pytest.approx(0.05 / 3**5) and levels[-1] > 0.025
    # Seeds that were lost leave a number between two looks: the level is never that of a later one.
    assert look_alpha(ROUNDS, 7) == levels[1] and look_alpha(ROUNDS, 2) == levels[0]


def test_what_is_found_is_settled_and_what_could_still_be_found_is_not():
    clear = [0.20, 0.21, 0.19, 0.20, 0.21, 0.19]
    assert judged(clear).word == "better" and is_settled(judged(clear), ROUNDS, 6, 0.01)
    early = judged(clear[:4])  # below 6 seeds there is no verdict
    assert early.word == "interval only" and not is_settled(early, ROUNDS, 4, 0.01)
    open_ = judged([0.05, 0.12, -0.01, 0.08, 0.10, 0.02])
    assert open_.word == "no difference shown" and not is_settled(open_, ROUNDS, 6, 0.01)


def test_what_more_seeds_would_hardly_find_is_settled():
    hopeless = judged([0.05, -0.04, 0.03, -0.05, 0.04, -0.03])
    assert hopeless.word == "no difference shown" and is_settled(hopeless, ROUNDS, 6, 0.01)
    tight = judged([0.0049, 0.0051, 0.0050, 0.0050, 0.0049, 0.0051])  # shown, but within the margin
    assert tight.word == "no difference shown" and is_settled(tight, ROUNDS, 6, 0.01)
    assert not is_settled(judged([0.0149, 0.005, 0.01, 0.008, 0.012, 0.010]), ROUNDS, 6, 0.0)


@pytest.mark.parametrize("noise", ["normal", "skewed", "nested shares"])
def test_ten_null_arms_err_in_at_most_a_twentieth_of_sweeps_and_stop_early(noise):
    found = simulate((0.0,) * 10, noise, 300)
    assert 0.003 < found.family_error <= 0.05  # sd of the share .011
    assert found.covered >= 0.95 and found.seeds < 7.5


def test_power_is_near_that_of_all_seeds_and_clear_arms_stop_early():
    middling, clear = simulate((1.5,) * 10, "normal", 60), simulate((5.0,) * 10, "normal", 20)
    assert middling.fixed_power - 0.10 < middling.power < middling.fixed_power and middling.seeds < 11
    assert clear.power == 1 and clear.seeds < 7
