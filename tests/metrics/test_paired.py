"""Two methods on the same items, many tests at once, lost runs, words: hand values and simulated nulls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.metrics import statistics as s

shares = st.floats(0, 1).map(lambda x: round(x, 4))


@pytest.mark.parametrize(("table", "low", "high"), [
    ((20, 12, 2, 16), 0.0562, 0.3292),  # Newcombe 1998, method 10
    ((1, 7, 1, 12), 0.0256, 0.5069),  # Fagerland, Lydersen and Laake 2014: airway reactivity, sides exchanged
])  # fmt: skip
def test_newcombe_published_values(table, low, high):
    both, only_a, only_b, _ = table
    n = sum(table)
    found = s.newcombe_paired((both + only_a) / n, (both + only_b) / n, both / n, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_two_saturated_shares_leave_room():
    """Nothing disagrees on n items: +-z^2 / (n + z^2), with both at 1 as with both at 0."""
    z2 = stats.norm.isf(0.025) ** 2
    for share in (0.0, 1.0):
        found = s.newcombe_paired(share, share, share, 256)
        assert (found.low, found.high) == (pytest.approx(-z2 / (256 + z2)), pytest.approx(z2 / (256 + z2)))
    with pytest.raises(ValueError, match="in common"):
        s.newcombe_paired(0.9, 0.9, 0.5, 100)


def test_items_that_agree_say_more_than_items_that_might():
    known, unknown = s.newcombe_paired(0.8, 0.7, 0.68, 256), s.newcombe_paired(0.8, 0.7, None, 256)
    assert unknown.low < known.low < 0.1 < known.high < unknown.high


def test_item_level_coverage_of_the_paired_difference():
    """256 items, .85 against .80, most of them right or wrong together."""
    rng = np.random.default_rng(1)
    draws = rng.multinomial(256, [0.76, 0.09, 0.04, 0.11], 2000) / 256
    held = [not s.newcombe_paired(both + a, both + b, both, 256).excludes(0.05) for both, a, b, _ in draws]
    assert 0.93 <= np.mean(held) <= 0.97


def difference(a, b, items, shared, both=None, level=0.95):
    """a - b by seed with the item level of so many pairs behind each."""
    return s.joint_interval(s.paired_differences(a, b), s.assumed_level(a, b, items, shared, both), level)


@given(st.lists(st.tuples(shares, shares), min_size=2, max_size=8), st.integers(2, 300), st.integers(1, 40))
def test_shared_pairs_are_never_narrower_than_seeds_or_items_say(pairs, items, comparisons):
    a, b = ({i: pair[k] for i, pair in enumerate(pairs)} for k in (0, 1))
    level = 1 - 0.05 / comparisons
    found = difference(a, b, items, shared=True, level=level)
    seeds = s.paired_difference(a, b, level)
    one = s.newcombe_paired(math.fsum(a.values()) / len(a), math.fsum(b.values()) / len(b), None, items, level)
    assert found.mean == seeds.mean
    assert found.low == min(seeds.low, one.low) and found.high == max(seeds.high, one.high)
    plain = difference(a, b, items, shared=True)
    assert found.low <= plain.low and plain.high <= found.high
    shuffled = {i: a[i] for i in reversed(list(a))}
    assert difference(shuffled, b, items, shared=True, level=level) == found


def test_what_single_items_say_is_used_where_all_seeds_have_it():
    a, b, both = {0: 0.8, 1: 0.8, 2: 0.8}, {0: 0.7, 1: 0.7, 2: 0.7}, {0: 0.68, 1: 0.68, 2: 0.68}
    known = difference(a, b, [300, 256], True, both)
    one_seed = s.newcombe_paired(0.8, 0.7, 0.68, 256)
    assert (known.low, known.high) == (pytest.approx(one_seed.low), pytest.approx(one_seed.high))
    assert difference(a, b, 256, True, {0: 0.68}) == difference(a, b, 256, True)
    assert difference(a, b, None, True).low == pytest.approx(0.1)  # nothing known of items
    assert math.isnan(difference({0: 1.0}, {0: 1.0}, 256, True).low)  # items say nothing about other seeds
    with pytest.raises(ValueError, match="lie in"):
        difference({0: 1.5, 1: 1.5}, {0: 0.0, 1: 0.0}, 10, True)


def test_pairs_of_their_own_add_nothing_but_where_nearly_all_agree():
    """Ten pairs that disagree are enough for t; below that all pairs of all seeds give the least width."""
    a, b = {0: 0.8, 1: 0.7, 2: 0.75}, {0: 0.7, 1: 0.72, 2: 0.7}
    assert difference(a, b, 256, shared=False) == s.t_interval(s.paired_differences(a, b))
    one, least = {0: 1.0, 1: 1.0, 2: 1.0}, stats.norm.isf(0.025) ** 2
    found = difference(one, one, 256, shared=False)
    assert found.high == -found.low == pytest.approx(least / (3 * 256 + least))


def items_of(tables, base=None, shared=True, per_prompt=1):
    """`SeedItems` of `(seeds, pairs)` tables, the same pairs on every seed where `shared`."""
    out = {}
    for seed, row in enumerate(tables):
        names = np.array([f"{'' if shared else seed}/{i}" for i in range(row.size)], dtype=object)
        prompts = np.array([f"{'' if shared else seed}/{i // per_prompt}" for i in range(row.size)], dtype=object)
        out[seed] = s.SeedItems(names, prompts, row, None if base is None else base[seed])
    return out


@pytest.mark.parametrize("seeds", [4, 6])
def test_shared_pairs_add_the_mean_covariance_of_two_seeds(seeds):
    """Which t over seeds leaves out: by numpy's own covariances, over the number of pairs."""
    rng = np.random.default_rng(1)
    right = rng.random((seeds, 50)) < np.where(rng.random(50) < 0.5, 0.9, 0.3)
    level = s.item_level(items_of(right), shared=True)
    covariances = np.cov(right.astype(float))[np.triu_indices(seeds, 1)]
    assert level.added == pytest.approx(covariances.mean() / 50) and level.prompts == 50 and not level.floor
    mean, error = right.mean(), stats.sem(right.mean(axis=1))
    total = error**2 + level.added
    if seeds < s.MIN_SEEDS:  # Cochran and Cox: the critical values, weighted by the two variances
        half = (error**2 * stats.t.ppf(0.975, seeds - 1) + level.added * stats.t.ppf(0.975, 49)) / math.sqrt(total)
    else:  # Satterthwaite
        df = total**2 / (error**4 / (seeds - 1) + level.added**2 / 49)
        half = stats.t.ppf(0.975, df) * math.sqrt(total)
    found = s.joint_interval(right.mean(axis=1), level)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half))
    assert s.joint_interval(right.mean(axis=1), s.item_level(items_of(right, shared=False), False)) == s.t_interval(
        right.mean(axis=1)
    )


def test_order_of_rows_and_seeds_changes_no_bit():
    rng = np.random.default_rng(2)
    right, base = rng.random((3, 40)) < 0.7, rng.random((3, 40)) < 0.6
    level = s.item_level(items_of(right, base, per_prompt=4), shared=True)
    order = rng.permutation(40)
    turned = {
        seed: s.SeedItems(one.ids[order], one.prompts[order], one.counts[order], one.base[order])
        for seed, one in reversed(items_of(right, base, per_prompt=4).items())
    }
    assert s.item_level(turned, shared=True) == level


def test_where_all_agree_a_prompt_counts_as_one_pair():
    """3 seeds of 40 pairs on 10 prompts each: 30 prompts of their own, 10 where they are shared."""
    whole, z2 = np.ones((3, 40), dtype=bool), stats.norm.isf(0.025) ** 2
    for shared, prompts in ((False, 30), (True, 10)):
        level = s.item_level(items_of(whole, whole, shared, per_prompt=4), shared)
        assert level.floor and level.pairs.items == prompts and level.added == 0
        assert s.joint_interval(np.zeros(3), level).high == pytest.approx(z2 / (prompts + z2))
    one = s.cell_estimate([1.0, 1.0, 1.0], s.item_level(items_of(whole, None, False, 4), False))
    assert one.low == pytest.approx(s.wilson(30, 30).low) and one.high == 1.0


def test_whether_seeds_share_pairs_is_read_from_their_ids():
    a, b, c = (np.array(list(text), dtype=object) for text in ("abc", "cde", "fgh"))
    assert s.seeds_share([a, b]) and not s.seeds_share([a, c]) and not s.seeds_share([a])
    assert s.item_level({}, True) is None


def test_a_difference_near_one_brings_its_own_noise():
    """Both at 1: a difference of 10 points is 10 % of pairs that disagree. At .5 it adds next to nothing."""
    assert s.Pairs(1.0, 1.0, 1.0, 100).added_by(0.1) == pytest.approx((0.1 - 0.01) / 100)
    assert s.Pairs(0.5, 0.5, 0.4, 100).added_by(0.1) == 0.0
    assert s.Pairs(0.9, None, None, 100).added_by(0.1) == 0.0
    own = s.ItemLevel(s.Pairs(0.98, 0.98, 0.97, 1024))
    differences = dict(enumerate([0.002, -0.001, 0.001, 0.0, -0.002, 0.001]))
    assert s.judge(differences, items=own).mde > s.judge(differences).mde


# Intention to treat.
STATUSES = {0: "done", 1: "diverged", 2: "failed", 3: "done", 4: "pending", 5: "stopped"}


def test_lost_runs_count_as_worst_and_waiting_ones_do_not_count():
    found = s.intention_to_treat(STATUSES, {0: 0.9, 1: 0.99, 3: 0.7}, worst=0.0)
    assert found.values == {0: 0.9, 1: 0.0, 2: 0.0, 3: 0.7}  # what a lost run measured before is not used
    assert (found.n, found.lost, found.waiting, found.available) == (4, 2, 2, True)
    again = s.intention_to_treat(STATUSES, found.values, worst=0.0)
    assert again == found


def test_without_a_worst_value_there_is_no_estimate_but_a_count():
    found = s.intention_to_treat(STATUSES, {0: 1.5, 3: 2.5})
    assert (found.values, found.n, found.lost, found.available) == ({}, 4, 2, False)
    fine = s.intention_to_treat({0: "done", 1: "done"}, {0: 1.5, 1: 2.5})
    assert (fine.values, fine.n, fine.available) == ({0: 1.5, 1: 2.5}, 2, True)


def test_a_measure_that_does_not_apply_has_no_worst_either():
    assert s.intention_to_treat({0: "done", 1: "diverged"}, {}, worst=0.0).n == 0
    assert s.intention_to_treat({0: "diverged"}, {}, worst=0.0).values == {0: 0.0}  # every run was lost
    with pytest.raises(ValueError, match="unknown status"):
        s.intention_to_treat({0: "crashed"}, {})


def test_lost_rate_is_wilsons_over_runs_that_ended():
    assert s.lost_rate(STATUSES) == s.wilson(2, 4)
    assert s.lost_rate({0: "pending"}).n == 0


@pytest.mark.parametrize(
    ("row", "worst"), [(("up", 0, 1), 0), (("down", 0, 1), 1), (("none", 0, 1), None), (("up", -math.inf, 2), None)]
)
def test_worst_value(row, worst):
    assert s.worst_value(*row) == worst


# Power, words, and a whole family under the null.
def test_item_detectable_effect():
    """(1.96 + .84)^2 / 256 = 3.07 points with nothing discordant; with 10 %, 2.80 sqrt(.1 / 256)."""
    assert s.item_detectable_effect(0.0, 256) == pytest.approx(0.030659, abs=1e-5)
    assert s.item_detectable_effect(0.1, 256) == pytest.approx(2.801585 * math.sqrt(0.1 / 256), abs=1e-6)
    assert s.item_detectable_effect(0.1, 256, comparisons=45) > s.item_detectable_effect(0.1, 256)
    with pytest.raises(ValueError, match="discordant"):
        s.item_detectable_effect(1.5, 256)


def test_item_detectable_effect_is_found_four_times_in_five():
    """At discordance .1 a true difference of that size is excluded from 0 with power .78 to .82."""
    effect, rng = s.item_detectable_effect(0.1, 2000), np.random.default_rng(3)
    up, down = (0.1 + effect) / 2, (0.1 - effect) / 2
    draws = rng.multinomial(2000, [0.7, up, down, 0.2], 3000) / 2000
    found = [s.newcombe_paired(both + a, both + b, both, 2000).low > 0 for both, a, b, _ in draws]
    assert 0.77 <= np.mean(found) <= 0.82


def test_wording_says_what_could_stay_hidden():
    assert s.wording(s.NO_DIFFERENCE, 0.0421) == "no difference shown (could hide \u2264 0.042)"
    assert s.wording(s.NO_DIFFERENCE) == s.NO_DIFFERENCE == s.wording(s.NO_DIFFERENCE, math.nan)
    assert s.wording("better", 0.04) == "better"
    assert s.practical_margin(True) == s.SHARE_MARGIN == 0.01 and s.practical_margin(False) == 0.0


def test_the_margin_holds_back_a_significant_trifle():
    trifle = {i: 0.009 + 0.001 * (-1) ** i for i in range(10)}
    assert s.judge(trifle, margin=s.SHARE_MARGIN).word == s.NO_DIFFERENCE and s.judge(trifle).word == "better"


def test_false_verdicts_of_a_whole_null_sweep():
    """2,000 sweeps of five true nulls at ten seeds, accuracies on 256 items, from seeds to words: any false one."""
    rng = np.random.default_rng(4)
    level = rng.normal(0.7, 0.05, (2000, 1, 10))  # what a seed's methods share
    wins = rng.binomial(256, np.clip(level + rng.normal(0, 0.02, (2000, 6, 10)), 0, 1)) / 256
    false_words = false_p = 0
    for sweep in wins:
        methods = [dict(enumerate(row)) for row in sweep]
        differences = [s.paired_differences(method, methods[0]) for method in methods[1:]]
        words = [s.judge(dict(enumerate(d)), family=5).word for d in differences]
        false_words += not {"better", "worse"}.isdisjoint(words)
        false_p += min(p for p in s.corrected_p(differences) if p is not None) <= 0.05
    assert 0.02 <= false_words / 2000 <= 0.06 and false_p / 2000 <= 0.06


def test_a_p_that_could_never_be_small_is_not_given():
    """Ten seeds: 2 / 1024 times 25 is below .05, times 26 above."""
    ten = [list(np.linspace(1, 2, 10))] * 26
    assert s.corrected_p(ten) == [None] * 26
    assert s.corrected_p(ten[:25]) == [pytest.approx(25 * 2 / 1024)] * 25
    assert s.corrected_p([ten[0], [1.0, 2.0]]) == [pytest.approx(2 / 1024), None]
    assert s.corrected_p([np.ones(20)] * 90)[0] == pytest.approx(90 * 2.0**-19)
