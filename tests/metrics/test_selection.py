"""Selection rules on candidates where they must disagree, and on records with noisy validation labels."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.selection import RULES, Candidate, candidates_of, choose, compare_rules, regret, validation_half
from harness.types import InputError
from tests.metrics.planted import records

# True accuracy peaks at step 20 and falls as the noise is learnt; noisy validation goes on rising to step 50.
PEAK = Candidate("dpo b=2", 20, clean=0.90, observed=0.70, test=0.88, items=100)
NOISE = Candidate("dpo b=2", 50, clean=0.80, observed=0.75, test=0.79, items=100)
END = Candidate("dpo b=2", 200, clean=0.70, observed=0.72, test=0.69, items=100)
LOW = Candidate("dpo b=.5", 200, clean=0.60, observed=0.74, test=0.61, items=100)
GRID = [END, PEAK, LOW, NOISE]


def test_the_rules_disagree_where_they_should():
    assert choose(GRID, "oracle") is PEAK
    assert choose(GRID, "practitioner") is NOISE
    assert choose(GRID, "last") is LOW  # of the two last checkpoints the one noisy validation prefers
    assert [regret(GRID, rule) for rule in RULES] == pytest.approx([0.0, 0.09, 0.27])


def test_ties_go_to_the_earlier_step_and_then_the_first_label():
    early, late, other = Candidate("b", 5, 0.5, 0.5, 0.1, 9), Candidate("a", 9, 0.5, 0.5, 0.2, 9), None
    other = Candidate("a", 5, 0.5, 0.5, 0.3, 9)
    for order in ([early, late, other], [other, late, early], [late, early, other]):
        assert choose(order, "oracle") is other


def test_rules_side_by_side_are_paired_by_seed():
    def seed(shift):
        return [Candidate(c.label, c.step, c.clean + shift, c.observed + shift, c.test + shift, c.items) for c in GRID]

    results = {found.rule: found for found in compare_rules({s: seed(0.01 * s) for s in range(6)})}
    assert list(results) == list(RULES)
    assert results["oracle"].test.mean == pytest.approx(0.905) and results["oracle"].behind.mean == 0.0
    assert results["practitioner"].behind.mean == pytest.approx(0.09)  # the same on every seed: no spread
    assert results["practitioner"].behind.low == pytest.approx(0.09)
    assert results["last"].regret.mean == pytest.approx(0.27) and results["last"].picks[3].label == "dpo b=.5"
    low = results["oracle"].test.low
    assert low < 0.905 - 0.05  # items of one seed, not only six seeds


def test_without_noisy_labels_a_rule_that_needs_them_says_so():
    blind = [Candidate(c.label, c.step, c.clean, None, c.test, c.items) for c in GRID]
    assert choose(blind, "oracle").step == 20
    for rule in ("practitioner", "last"):
        with pytest.raises(InputError, match="no validation_label"):
            choose(blind, rule)
    assert choose([c for c in blind if c.label == "dpo b=2"], "last").step == 200  # one setting: nothing to choose by
    with pytest.raises(InputError, match="known: oracle"):
        choose(GRID, "best")
    with pytest.raises(InputError, match="nothing to choose"):
        choose([], "oracle")


def _records(noisy):
    """Two checkpoints of 40 held-out pairs: all right at step 1, wrong on every fourth at step 2."""
    ids = np.array([f"pair {i}" for i in range(40)])
    parts = []
    for step in (1, 2):
        rows = records(np.where((np.arange(40) % 4 == 0) & (step == 2), -1.0, 1.0), np.zeros(40))
        rows |= {"step": np.full(40, step), "split": np.full(40, "eval_clean"), "id": ids, "prompt_id": ids}
        parts.append(rows | ({} if noisy is None else {"validation_label": noisy}))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_candidates_are_read_from_records_on_two_halves():
    noisy = np.where(np.arange(40) % 4 == 0, -1, 1)  # the noise agrees with what step 2 got wrong
    noisy[1] = 0  # a pair that a noisy set would not hold
    first, second = candidates_of(_records(noisy), "run")
    half = validation_half([f"pair {i}" for i in range(40)])
    known, wrong = half & (noisy != 0), half & (noisy < 0)
    assert (first.clean, first.test, first.items) == (1.0, 1.0, int((~half).sum()))
    assert first.observed == pytest.approx(1 - wrong.sum() / known.sum()) and second.observed == 1.0
    assert second.test == pytest.approx(1 - (~half & (np.arange(40) % 4 == 0)).sum() / (~half).sum())
    assert choose([first, second], "oracle").step == 1 and choose([first, second], "practitioner").step == 2
    assert all(c.observed is None for c in candidates_of(_records(None), "run"))


def test_the_halves_are_halves_and_depend_on_prompts_alone():
    ids = [f"pair {i}" for i in range(2000)]
    half = validation_half(ids)
    assert 0.46 <= half.mean() <= 0.54
    assert (validation_half(ids[::-1]) == half[::-1]).all()


def test_a_checkpoint_that_is_not_finite_is_no_candidate():
    rows = _records(None)
    rows["policy_chosen"] = np.where(rows["step"] == 2, np.nan, rows["policy_chosen"])
    assert [c.step for c in candidates_of(rows, "run")] == [1]
