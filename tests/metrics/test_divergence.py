"""The loss/accuracy divergence detector: golden McNemar, nulls, and constructions that fire their own type only."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import dpo_pull, full, records

from harness.metrics import divergence as d
from harness.types import InputError


@pytest.mark.parametrize(
    ("broken", "mended", "p"),
    [(5, 0, 0.03125), (8, 1, 0.01953125), (15, 4, 0.0096054077), (30, 12, 0.0039579487), (12, 10, 0.4159059525)],
)
def test_golden_mcnemar(broken, mended, p):
    assert d.mcnemar_p(broken, mended) == pytest.approx(p, abs=5e-11)
    # The clustered test with one pair a prompt is the same test.
    assert d.clustered_sign_p([1] * broken + [-1] * mended + [0] * 7) == pytest.approx(p, abs=5e-11)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_falls_with_broken_and_rises_with_mended(broken, mended):
    p = d.mcnemar_p(broken, mended)
    assert d.mcnemar_p(0, 0) == 1 and 0 <= p <= 1
    assert d.mcnemar_p(broken + 1, mended) <= p <= d.mcnemar_p(broken, mended + 1)


@settings(max_examples=40)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_clustered_sign_test_counts_every_pattern(losses):
    patterns = list(itertools.product((1, -1), repeat=len(losses)))
    hits = sum(sum(s * abs(x) for s, x in zip(signs, losses, strict=True)) >= sum(losses) for signs in patterns)
    assert d.clustered_sign_p(losses) == pytest.approx(hits / len(patterns))


def test_paired_fall():
    from scipy import stats

    first, last = np.random.default_rng(1).normal(0, 1, (2, 30))
    expected = stats.ttest_rel(first, last, alternative="greater").pvalue
    assert d.paired_fall_p(first, last) == pytest.approx(expected)
    assert d.paired_fall_p(np.array([0.5]), np.array([0.1])) == 1.0  # one pair shows nothing
    assert d.paired_fall_p(np.full(9, 2.0), np.full(9, 1.0)) == 0.0
    assert d.paired_fall_p(np.full(9, 1.0), np.full(9, 1.0)) == 1.0


N = 200
RNG = np.random.default_rng(11)
REFERENCE = np.abs(RNG.normal(0, 1, N)) + 0.2  # a well-aligned reference


def at(delta, split="eval_clean", step=0, reference=REFERENCE, beta=2.0, **extra):
    return full(split, step, records(delta, reference, **extra), beta)


def reversal():
    """Most pairs gain a lot, 20 of the right ones end up wrong: the mean loss falls, so does accuracy."""
    end = REFERENCE + 3.0
    end[:20] = -0.1
    return at(REFERENCE), at(end, step=10)


def test_d2_fires_on_a_true_reversal():
    found = d.true_reversal(*reversal())
    assert found.kind == "D2" and found.event and found.fires()
    assert (found.broken, found.mended) == (20, 0)
    assert found.accuracy_first == 1.0 and found.accuracy_last == 0.9
    assert found.loss_last < found.loss_first
    assert found.p == max(found.p_loss, found.p_accuracy) and found.p_accuracy == 2.0**-20


def test_d2_does_not_depend_on_row_order():
    first, last = reversal()
    order = np.random.default_rng(2).permutation(N)
    shuffled = {name: values[order] for name, values in last.items()}
    again, found = d.true_reversal(first, shuffled), d.true_reversal(first, last)
    assert (again.broken, again.p_accuracy, again.event) == (found.broken, found.p_accuracy, found.event)


def test_a_rule_without_both_parts_is_no_event():
    start = at(REFERENCE)
    assert not d.true_reversal(start, at(REFERENCE + 2, step=9)).event  # clean, improving: loss falls, accuracy stays
    worse = REFERENCE.copy()
    worse[:40] = -5.0
    assert not d.true_reversal(start, at(worse, step=9)).event  # accuracy falls, and so does nothing else
    nearly = REFERENCE + 3.0
    nearly[:1] = -0.1  # one of 200 is below epsilon_A
    assert not d.true_reversal(start, at(nearly, step=9)).event
    exactly = REFERENCE + 3.0
    exactly[:2] = -0.1  # a fall of exactly .01
    assert d.true_reversal(start, at(exactly, step=9)).event
    assert not d.true_reversal(start, at(exactly, step=9)).fires()  # two pairs are no evidence


def test_negative_losses_are_legal():
    first, last = reversal()
    lower = [columns | {"base_loss": columns["base_loss"] - 50} for columns in (first, last)]
    assert d.true_reversal(*lower).fires()


def test_pairs_of_one_prompt_count_once():
    """The 20 broken pairs all belong to 2 prompts: no evidence any more."""
    first, last = reversal()
    prompts = np.array([f"q{i // 10}" for i in range(N)])
    plain = d.true_reversal(first, last)
    clustered = d.true_reversal(
        first | {"prompt_id": prompts}, last | {"prompt_id": prompts}, prompt_column="prompt_id"
    )
    assert clustered.broken == plain.broken and clustered.event
    assert clustered.p_accuracy == 0.25 and not clustered.fires()


def memorising(step_gain=3.0):
    """A quarter of the labels is wrong; the policy follows the observed labels everywhere, and held-out pairs with the
    same shared feature break."""
    flips = np.arange(N) % 4 == 0
    reference = np.where(flips, -REFERENCE, REFERENCE)
    labels = np.where(flips, -1, 1)
    observed = [at(reference, "train_observed", reference=reference, clean_label=labels),
                at(reference + step_gain, "train_observed", 10, reference, clean_label=labels)]  # fmt: skip
    held_out = REFERENCE + 1.0
    held_out[::5] = -0.3
    return observed, [at(REFERENCE), at(held_out, step=10)]


def test_d3_fires_on_memorised_noise_and_is_not_d2():
    observed, clean = memorising()
    found = d.noise_memorisation(*observed, *clean)
    assert found.kind == "D3" and found.fires()
    assert not d.true_reversal(*observed).event  # on its own labels accuracy rose


def test_d3_needs_the_observed_accuracy_to_rise():
    _, clean = memorising()
    start = at(REFERENCE, "train_observed")
    flat = d.noise_memorisation(start, at(REFERENCE + 2, "train_observed", 10), *clean)
    assert flat.loss_last < flat.loss_first and flat.accuracy_last < flat.accuracy_first and not flat.event


def test_a_clean_run_that_improves_fires_nothing():
    reference = RNG.normal(0.5, 1, N)
    first, last = at(reference, reference=reference), at(reference + 4, step=10, reference=reference)
    observed = [full("train_observed", step, columns, 2.0) for step, columns in ((0, first), (10, last))]
    assert not d.true_reversal(first, last).event
    assert not d.noise_memorisation(*observed, first, last).event
    weights = [dpo_pull(columns, 2.0) for columns in (first, last)]
    assert not d.premature_convergence(last, *weights).fires()


def descend(pull, steps, rate, reference=-4.0):
    """Gradient descent of one pair on its own margin, from the reference: the margin after each step."""
    path = [reference]
    for _ in range(steps):
        path.append(path[-1] + rate * pull(path[-1]))
    return np.array(path)


def sigma(x):
    return 1 / (1 + math.exp(-x))


BETA, REF, WIN = 0.5, -4.0, 0.7310585786300049


def population(delta):
    z = BETA * (delta - REF)
    return BETA * (WIN * sigma(-z) - (1 - WIN) * sigma(z))


def hard(delta):
    return BETA * sigma(-BETA * (delta - REF))


def test_population_labels_are_pure_premature_convergence():
    """One violated pair at its true optimum: reward accuracy 1, ranking 0, in the zone, hardly any pull, never D2."""
    path = descend(population, 400, 1.0)
    many = [records(np.full(80, delta), np.full(80, REF)) for delta in path]
    pulls = [np.full(80, population(delta)) for delta in path]
    fired = [d.premature_convergence(rows, pulls[0], pull).fires() for rows, pull in zip(many, pulls, strict=True)]
    assert fired.index(True) == 40 and all(fired[40:])  # from step 40 on
    z = BETA * (path - REF)
    losses = WIN * np.logaddexp(0, -z) + (1 - WIN) * np.logaddexp(0, z)
    assert (np.diff(losses) < 1e-12).all()
    first, last = (full("eval_clean", step, many[step]) | {"base_loss": np.full(80, losses[step])} for step in (0, 400))
    assert not d.true_reversal(first, last).event


def test_hard_labels_on_the_same_pair_never_fire():
    """In the zone the pull stays above sigma(beta delta_ref) / sigma(0) = 24 %: slow, not satisfied. No D2 either."""
    path = descend(hard, 500, 0.2)
    assert int(np.argmax(path > 0)) == 168
    tables = [records(np.full(80, delta), np.full(80, REF)) for delta in path]
    weights = [dpo_pull(rows, BETA) for rows in tables]
    found = [d.premature_convergence(rows, weights[0], w) for rows, w in zip(tables, weights, strict=True)]
    assert not any(item.fires() for item in found)
    assert min(item.pull for item in found if item.zone_low > 0.95) > 0.238
    rows = [full("eval_clean", step, table) for step, table in enumerate(tables)]
    assert not any(d.true_reversal(rows[0], row).event for row in rows)


def test_satisfaction_needs_its_lower_bound():
    rows = records([-0.1] + [9.0] * 9, [-4.0] + [0.1] * 9)  # one of ten pairs in the zone: could be nothing
    found = d.premature_convergence(rows, np.ones(10), np.full(10, 0.01))
    assert found.reward_accuracy == 1 and found.zone_low < 0.05 and not found.fires()


def test_null_simulation_fires_in_at_most_five_percent():
    """Exchangeable checkpoints: which of the two came first is a coin flip for every pair."""
    rng = np.random.default_rng(3)
    fired = 0
    for _ in range(1000):
        ends = rng.normal(0.5, 1, (2, 60))
        columns = [full("eval_clean", step, records(end, np.zeros(60))) for step, end in enumerate(ends)]
        # Losses unrelated to the ranks, so that neither part follows from the other.
        columns = [c | {"base_loss": rng.normal(0, 1, 60)} for c in columns]
        fired += d.true_reversal(*columns).fires()
    assert fired <= 50


def test_family_of_null_runs_stays_within_its_level():
    """Accuracy-only nulls, the loss surely falling: Holm over 10 runs keeps the family at 5 %."""
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(400):
        flips = rng.integers(0, 30, 10)
        broken = rng.binomial(flips, 0.5)
        runs = {
            i: d.Divergence("D2", True, 1.0, 0.5, 0.8, 0.7, int(b), int(n - b), 0.0, d.mcnemar_p(int(b), int(n - b)))
            for i, (b, n) in enumerate(zip(broken, flips, strict=True))
        }
        found += bool(d.confirmed(runs))
    assert found <= 24


def test_confirmed_corrects_over_all_runs_and_keeps_the_rule():
    def run(event, p):
        return d.Divergence("D2", event, 1.0, 0.5, 0.8, 0.7, 1, 1, 0.0, p)

    runs = {"a": run(True, 0.01), "b": run(True, 0.03), "c": run(False, 0.001), "d": run(True, 0.5)}
    assert d.confirmed(runs) == {"a": pytest.approx(0.03)}
    assert d.confirmed({"b": run(True, 0.03)}) == {"b": pytest.approx(0.03)}
    assert d.confirmed({}) == {}


def test_unlike_or_broken_checkpoints_are_refused():
    first, last = reversal()
    with pytest.raises(InputError, match="different ids"):
        d.true_reversal(first, {name: values[1:] for name, values in last.items()})
    with pytest.raises(InputError, match="doubled"):
        d.true_reversal(first, last | {"id": np.array(["same"] * N)})
    with pytest.raises(InputError, match="non-finite"):
        d.true_reversal(first, last | {"base_loss": np.full(N, np.nan)})
    with pytest.raises(InputError, match="diverged"):
        d.premature_convergence(records([math.nan], [1.0]), np.ones(1), np.ones(1))
