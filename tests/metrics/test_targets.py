"""Targets, slack, the bridge and the pull, against hand values and each loss written out again in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from planted import pairs, records

from harness.metrics import margin_columns as margins
from harness.metrics import targets
from harness.objectives import OBJECTIVES

# a, b = -12, -15.5; a0, b0 = -14, -13; n = 10, 12: the pair of the golden losses.
G1 = {
    "policy_chosen": np.array([-12.0]), "policy_rejected": np.array([-15.5]),
    "reference_chosen": np.array([-14.0]), "reference_rejected": np.array([-13.0]),
    "chosen_len": np.array([10]), "rejected_len": np.array([12]),
}  # fmt: skip
REF, LN_REF = -1.0, -14 / 10 + 13 / 12
SMOOTH = {"beta": 2.5, "gamma": 0.5, "tau": 2.0, "alpha": 1.0}

GOLDEN = [  # objective, hyperparameters, golden per-pair loss of a logistic margin objective on G1
    ("dpo", {"beta": 0.1}, 0.4932489460),
    ("hypo", {"beta": 0.1}, 0.5333821554),
    ("contrastive_cpo", {"beta": 0.1, "lam": 0.0}, 0.5333821554),
    ("ln_dpo", {"beta": 5.0}, 0.1220514037),
    ("simpo", {"beta": 2.0, "gamma_ratio": 0.5}, 1.1826298874),
    ("rdpo_length", {"beta": 0.1, "alpha": 0.01}, 0.5010837826),
    ("dpop", {"beta": 0.1, "lam": 50.0}, 0.4932489460),
    ("cpo_clip", {"beta": 2.5}, 0.5851142025),
    ("cpo_smooth", SMOOTH, 1.4971180969),
    ("cpo_smooth", SMOOTH | {"alpha": 0.25}, 8.0380484669),
    ("cpo_smooth", {"beta": 2.0, "gamma": 1.0, "tau": 2.0, "alpha": 1.0, "reduction": "sum"}, 0.0068379248),
    ("ecpo_released", {"beta": 2.5, "gamma": 0.05}, 0.2866613449),
    ("cpo_eq17", {"beta": 2.5, "gamma": 0.05}, 0.4131228180),
    ("cpo_dual", {"beta": 0.5}, 0.2519290813),
]


def loss_of(objective, columns, hp):
    """softplus(-beta slack): what a logistic margin objective minimises."""
    return np.logaddexp(0.0, -hp["beta"] * targets.slack(objective, columns, hp))


@pytest.mark.parametrize(("objective", "hp", "golden"), GOLDEN)
def test_the_slack_reproduces_every_golden_loss(objective, hp, golden):
    columns = G1 | {"multiplier": np.array([1.0])}
    assert loss_of(objective, columns, hp)[0] == pytest.approx(golden, abs=1e-9)


@pytest.mark.parametrize(
    ("objective", "hp", "value"),
    [
        ("robust_dpo", {"beta": 0.1, "eps": 0.1}, REF), ("hinge", {"beta": 0.1}, REF + 10),
        ("ipo", {"beta": 0.1, "length_average": False}, REF + 5), ("slic", {"margin": 1.0, "lam": 0.1}, 1.0),
        ("ipo", {"beta": 0.1, "length_average": True}, LN_REF + 5), ("hypo", {"beta": 0.1}, 0.0),
        ("simpo", {"beta": 2.0, "gamma_ratio": 0.5}, 0.5), ("ln_dpo", {"beta": 5.0}, LN_REF),
    ],
)  # fmt: skip
def test_targets_by_hand(objective, hp, value):
    assert targets.target(objective, G1, hp) == pytest.approx([value])


@pytest.mark.parametrize("objective", ["kto", "sppo", "orpo", "apo_zero", "cal_dpo", "no_such_objective"])
def test_objectives_without_a_target_have_none(objective):
    for function in (targets.target, targets.slack, targets.bridge_threshold):
        assert function(objective, G1, {"beta": 0.1}) is None


@pytest.mark.parametrize(
    ("beta", "reference", "threshold"),
    [(0.1, -10, 0.313262), (0.1, -4, 0.513015), (0.1, -1, 0.644397), (0.5, -1, 0.474077), (1, -4, 0.018150),
     (2.5, -0.3, 0.386871)],
)  # fmt: skip
def test_bridge_thresholds(beta, reference, threshold):
    columns = records([0.0], [reference])
    assert targets.bridge_threshold("dpo", columns, {"beta": beta}) == pytest.approx([threshold], abs=5e-7)


@pytest.mark.parametrize(("objective", "hp"), [(name, hp) for name, hp, _ in GOLDEN])
@settings(max_examples=30)
@given(columns=pairs())
def test_below_the_bridge_means_ranked_right(objective, hp, columns):
    """base_loss < log1p(exp(beta T)) exactly where delta > 0, negative margins included."""
    columns = columns | {"multiplier": np.full(len(columns["id"]), 0.7)}
    columns = columns | {"base_loss": loss_of(objective, columns, hp)}
    own = margins.delta(targets.in_reduction(objective, columns, hp))
    # Far out both sides saturate in float64, and at 0 they round: neither is what the lemma is about.
    usable = (np.abs(own) > 1e-6) & (np.abs(hp["beta"] * targets.target(objective, columns, hp)) < 30)
    usable &= columns["base_loss"] > 1e-6
    passed = targets.bridge_pass(objective, columns, hp)
    assert np.array_equal(passed[usable], (own > 0)[usable])


def test_an_added_likelihood_term_breaks_the_bridge():
    assert (
        targets.bridge_pass("contrastive_cpo", G1 | {"base_loss": np.array([1.0])}, {"beta": 0.1, "lam": 1.0}) is None
    )
    assert targets.bridge_threshold("dpo", G1, {"beta": 0.1, "rpo_alpha": 1.0}) is None
    assert targets.bridge_threshold("ipo", G1, {"beta": 0.1}) is None


@pytest.mark.parametrize("objective", ["hypo", "cpo_clip", "cpo_smooth", "cpo_eq17"])
@settings(max_examples=30)
@given(columns=pairs())
def test_margins_raise_the_target_so_slack_starts_at_most_at_zero(objective, columns):
    start = columns | {"policy_chosen": columns["reference_chosen"], "policy_rejected": columns["reference_rejected"]}
    assert (targets.slack(objective, start, SMOOTH) <= 1e-9).all()
    assert targets.slack("dpo", start, SMOOTH) == pytest.approx(np.zeros(len(columns["id"])))


def test_the_smooth_target_clears_the_reference_and_gamma():
    reference = np.linspace(-20, 20, 81)
    columns = records(reference, reference)
    wanted = targets.target("cpo_smooth", columns, SMOOTH | {"reduction": "sum"})
    assert (wanted >= np.maximum(reference, SMOOTH["gamma"])).all() and (np.diff(wanted) >= 0).all()
    hard = targets.target("cpo_smooth", columns, SMOOTH | {"gamma": 0.0, "tau": 1e6, "reduction": "sum"})
    assert hard == pytest.approx(targets.target("hypo", columns, SMOOTH), abs=1e-5)


def test_reduction_is_stated_by_the_objective_or_its_hyperparameters():
    means = [("simpo", {}), ("cpo_smooth", {}), ("ipo", {"length_average": True})]
    sums = [("dpo", {}), ("ipo", {}), ("cpo_smooth", {"reduction": "sum"})]
    assert all(targets.uses_token_means(objective, hp) for objective, hp in means)
    assert not any(targets.uses_token_means(objective, hp) for objective, hp in sums)


def test_the_reduction_is_the_one_the_objectives_table_names():
    for name, row in OBJECTIVES.items():
        defaults = {key: parameter.default for key, parameter in row.hyperparameters.items()}
        assert targets.uses_token_means(name, defaults) == (row.reduction == "mean"), name


def test_clamps_are_where_the_loss_holds_its_exponent():
    """Beyond the limit the recorded slope of each of these losses is zero, below it is not."""
    far = G1 | {"policy_chosen": np.array([-200.0]), "reference_chosen": np.array([-14.0])}
    hp = {"beta": 0.1, "alpha": 1.0}
    assert targets.clamped("fdpo_forward_kl", far, hp).tolist() == [True]
    assert targets.clamped("fdpo_forward_kl", G1, hp).tolist() == [False]
    assert targets.clamped("fdpo_alpha", far, hp | {"alpha": 0.1}).tolist() == [False]
    assert targets.clamped("chi_po", G1 | {"policy_rejected": np.array([70.0])}, hp).tolist() == [True]
    assert targets.clamped("alphapo", G1 | {"policy_chosen": np.array([-900.0])}, hp).tolist() == [True]  # 90 a token
    assert targets.clamped("cpo_eq17", G1 | {"reference_chosen": np.array([-900.0])}, hp).tolist() == [True]
    assert targets.clamped("dpo", far, hp) is None and targets.clamped("wpo", far, hp) is None


def test_pull_reads_the_recorded_slopes():
    rows = G1 | {"grad_w": np.array([0.3]), "grad_l": np.array([0.1])}
    assert targets.pull("dpo", rows, {"beta": 0.1}) == pytest.approx([0.2])
    assert targets.pull("simpo", rows, {"beta": 0.1}) == pytest.approx([(0.3 * 10 + 0.1 * 12) / 2])
