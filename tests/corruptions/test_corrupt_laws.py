"""The laws every corruption keeps, over the whole table: a new row arrives tested."""

import itertools

import pandas as pd
import pytest
from corrupt_cases import CASES, NAMES, RATES, by_id, half_up, made, masked_ids, replay, run, takes_rate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.corruptions import CORRUPTIONS, corrupt
from harness.corruptions.ledger import row_hash, set_hash
from harness.laws import corruptions as laws
from harness.types import InputError

every_case = pytest.mark.parametrize(("kind", "params"), CASES, ids=NAMES)
QUICK = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SIZES = st.sampled_from((2, 6, 7, 24, 41))
SEEDS = st.sampled_from((0, 11))
rated = [(k, p) for k, p in CASES if takes_rate(k, p)]
rated_cases = pytest.mark.parametrize(("kind", "params"), rated, ids=[NAMES[CASES.index(c)] for c in rated])


def attempt(kind, params, n, rate, seed):
    """The set of a case, or None where so few pairs cannot give one (and the error says why)."""
    pairs, facts = made(n)
    try:
        return pairs, facts, *run(kind, params, pairs, facts, rate, seed)
    except InputError as error:
        assert n < 10 and kind in ("ref_shift", "off_policy", "spurious_feature"), error
        return None


@every_case
@QUICK
@given(n=SIZES, rate=st.sampled_from(RATES), seed=SEEDS)
def test_pairs_ledger_and_manifest_agree(kind, params, n, rate, seed):
    found = attempt(kind, params, n, rate, seed)
    if found is None:
        return
    laws.touches_what_the_ledger_says(kind, params, n, rate, seed)
    pairs, _, out, ledger = found
    manifest, before, after = ledger.attrs["manifest"], by_id(pairs), by_id(out)
    # 10: hashes recompute, and are equal iff nothing happened.
    assert manifest["before_hash"] == set_hash(pairs) and manifest["after_hash"] == set_hash(out)
    acting = ledger[~ledger["vacuous"]]
    assert (manifest["before_hash"] == manifest["after_hash"]) == (len(acting) == 0)
    assert manifest["n_vacuous"] == int(ledger["vacuous"].sum())
    for row in ledger.itertuples():
        assert row.before_hash == row_hash(before[row.id])
        name = row.new_id if row.action == "append" else row.id
        assert (row.after_hash == row_hash(after[name])) if name in after else pd.isna(row.after_hash)
    # The ledger replays, and its numbers are counted ones.
    assert replay(pairs, ledger) == out
    assert (manifest["n_before"], manifest["n_after"]) == (n, len(out))
    acted = ledger if takes_rate(kind, params) else ledger[ledger["action"] != "relabel_same"]
    assert manifest["rate_realised"] == pytest.approx(len(acted) / n)
    if kind != "length_biased":
        assert len(masked_ids(ledger)) == len(acted)


@every_case
@QUICK
@given(n=SIZES, seed=SEEDS, shuffle=st.integers(0, 99))
def test_row_order_and_facts_order_do_not_matter(kind, params, n, seed, shuffle):
    if attempt(kind, params, n, 0.3, seed) is not None:
        laws.order_does_not_matter(kind, params, n, seed, shuffle)


@every_case
@pytest.mark.parametrize("law", laws.CASE_LAWS, ids=lambda law: law.__name__)
def test_every_row_keeps_every_law(law, kind, params):
    if not (law is laws.counts_are_exact and kind == "prompt_clustered"):  # counts prompts, see below
        law(kind, params)


NEUTRAL = [
    ("bt_flip", {"temperature": 0}),
    ("length_biased", {"kappa": 0, "temperature": 0}),
    ("spurious_feature", {"kappa": 0, "temperature": 0}),
    ("near_tie", {"quantile": 0}),
    ("near_tie", {"quantile": 1, "form": "filter"}),
    ("ref_shift", {"shift": 0}),
    ("ref_shift", {"shift": 0, "form": "reweight"}),
    ("rm_noise", {"noise": 0}),
    ("none", {}),
]


@pytest.mark.parametrize(("kind", "params"), NEUTRAL)
def test_neutral_parameters_are_the_identity(kind, params):
    pairs, facts = made(60)
    # Some labels disagree with the gold margin: a neutral annotator does not repair them.
    facts["gold_margin"] *= [1.0 if i % 4 else -1.0 for i in range(60)]
    out, _ = run(kind, params, pairs, facts)
    assert out == pairs


@rated_cases
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_exact_counts_round_halves_up(kind, params, n):
    if "C" not in laws.declared(kind, params):
        pytest.skip("the row does not declare an exact count")
    pairs, facts = made(n)
    for rate in (*RATES, 0.25, 0.75):
        unit = len({p.prompt for p in pairs}) if kind == "prompt_clustered" else n
        if kind == "prompt_clustered" and params.get("rho", 1) < 1:
            continue
        if kind == "off_policy" and n == 1 and half_up(rate, n) and not params:
            with pytest.raises(InputError, match="share one prompt"):
                run(kind, params, pairs, facts, rate)
            continue
        _, ledger = run(kind, params, pairs, facts, rate)
        manifest = ledger.attrs["manifest"]
        assert manifest["k_target"] == manifest["k_realised"] == half_up(rate, unit)
        if kind == "prompt_clustered":
            assert ledger["prompt_id"].nunique() == half_up(rate, unit)
        else:
            assert len(ledger) == half_up(rate, n)
            assert ledger["rank"].tolist() == list(range(len(ledger)))


@rated_cases
@pytest.mark.parametrize("mode", ["exact", "bernoulli"])
def test_sets_are_nested_in_the_rate(kind, params, mode):
    assert "N" in laws.declared(kind, params)
    pairs, facts = made(200)
    grid = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0)
    masks = [set(run(kind, {**params, "mode": mode}, pairs, facts, rate, 5)[1]["id"]) for rate in grid]
    assert all(small <= large for small, large in itertools.pairwise(masks))
    assert len(masks[0]) == 0 and len(masks[-1]) == 200


@rated_cases
def test_bernoulli_counts_stay_in_binomial_bounds(kind, params):
    pairs, facts = made(1000, prompts=1000)
    _, ledger = run(kind, {**params, "mode": "bernoulli"}, pairs, facts, 0.3, 2)
    assert abs(len(ledger) - 300) < 6 * (1000 * 0.3 * 0.7) ** 0.5
    assert len(ledger) != 300 or ledger.attrs["manifest"]["mode"] == "bernoulli"


@every_case
@QUICK
@given(n=SIZES, rate=st.sampled_from(RATES), seed=SEEDS)
def test_flipping_twice_is_the_identity(kind, params, n, rate, seed):
    laws.twice_is_the_identity(kind, params, n, rate, seed)


def test_every_flip_kind_declares_involution():
    declared = {kind for kind, row in CORRUPTIONS.items() if "I" in row.laws}
    assert declared == {"uniform_flip", "bt_flip", "adversarial_hard", "adversarial_easy", "prompt_clustered"}


def test_kinds_hit_independent_sets_and_seeds_differ():
    pairs, facts = made(2000)
    kinds = ("uniform_flip", "identical", "contradictory_dup", "truncate", "pointwise_quality", "off_policy")
    masks = {kind: set(run(kind, {}, pairs, facts, 0.3, 4)[1]["id"]) for kind in kinds}
    other = set(run("uniform_flip", {}, pairs, facts, 0.3, 5)[1]["id"])
    sets = [*masks.values(), other]
    for i, a in enumerate(sets):
        for b in sets[:i]:
            # Overlap of two independent 30 % sets of 2000: hypergeometric, mean 180, sd about 9.4.
            assert abs(len(a & b) - 180) < 6 * 9.4


@pytest.mark.parametrize("kind", [k for k, row in CORRUPTIONS.items() if row.rate == "derived"])
def test_derived_kinds_refuse_a_rate_and_name_what_sets_it(kind):
    pairs, facts = made(10)
    with pytest.raises(InputError, match=f"'{kind}' takes no rate.*{CORRUPTIONS[kind].set_by[:5]}"):
        corrupt(pairs, kind=kind, rate=0.2, seed=0, facts=facts)


@every_case
def test_other_pairs_are_never_touched(kind, params):
    train, facts = made(40)
    held_out, _ = made(40, seed=9)
    before = set_hash(held_out)
    run(kind, params, train, facts)
    assert set_hash(held_out) == before
