"""Hand-computed values: the pair of objectives.md, other branches of it, the step-0 table, the numeric traps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.laws.objectives import starts_at_step_zero
from harness.metrics.targets import LOGISTIC_MARGIN, TARGETS, bridge_threshold
from harness.objectives import OBJECTIVES
from harness.objectives.row import StepZero
from harness.types import PairLogps
from tests.objectives.cases import BATCH_LEVEL, G1, NAMES, batch, pair, pairs, value

GOLDEN = [
    ("dpo", {"beta": 0.1}, 0.4932489460),
    ("cdpo", {"beta": 0.1, "eps": 0.1}, 0.5382489460),
    ("robust_dpo", {"beta": 0.1, "eps": 0.1}, 0.4369989460),
    ("ipo", {"beta": 0.1, "length_average": False}, 0.25),
    ("ipo", {"beta": 0.1, "length_average": True}, 21.0834027778),
    ("hinge", {"beta": 0.1}, 0.55),
    ("slic", {"margin": 1.0, "lam": 0.0}, 0.0),
    ("exo", {"beta": 0.1, "eps": 1e-3}, 2.0217585412),
    ("nca", {"beta": 0.1}, 1.2851780140),
    ("bco", {"beta": 0.1}, 1.1740782893),
    ("sppo", {"beta": 0.1}, 15.25),
    ("apo_zero", {"beta": 0.1}, 0.8879895018),
    ("apo_down", {"beta": 0.1}, 0.9391947634),
    ("discopop", {"beta": 0.1, "tau": 0.05}, 0.6376103360),
    ("ln_dpo", {"beta": 5.0}, 0.1220514037),
    ("simpo", {"beta": 2.0, "gamma": 1.0}, 1.1826298874),
    ("contrastive_cpo", {"beta": 0.1, "lam": 0.0}, 0.5333821554),
    ("dpop", {"beta": 0.1, "lam": 50.0}, 0.4932489460),
    ("rdpo_length", {"beta": 0.1, "alpha": 0.01}, 0.5010837826),
    ("cal_dpo", {"beta": 0.1}, 15.2610477448),
    ("chi_po", {"beta": 0.1, "r_max": 1.0}, 0.2677838643),
    ("dpo_shift", {"beta": 0.1, "f": 0.75}, 0.5180504423),
    ("ropo", {"beta": 0.1, "alpha": 14.0}, 1.4794701403),
    ("sympo", {"beta": 0.1, "form": "sigmoid"}, 0.3893607661),
    ("alphapo", {"beta": 2.0, "gamma": 1.0, "alpha": 0.25}, 1.1366458422),
    ("fdpo_forward_kl", {"beta": 0.1}, 0.2621928373),
    ("fdpo_js", {"beta": 0.1}, 0.5780454891),
    ("fdpo_alpha", {"beta": 0.1, "alpha": 0.5}, 0.4288775740),
    ("hypo", {"beta": 0.1}, 0.5333821554),
    ("cpo_clip", {"beta": 2.5}, 0.5851142025),
    ("cpo_smooth", {"beta": 2.5, "gamma": 0.5, "tau": 2.0, "alpha": 1.0, "reduction": "mean"}, 1.4971180969),
    ("cpo_smooth", {"beta": 2.5, "gamma": 0.5, "tau": 2.0, "alpha": 0.25, "reduction": "mean"}, 8.0380484669),
    ("cpo_smooth", {"beta": 2.0, "gamma": 1.0, "tau": 2.0, "alpha": 1.0, "reduction": "sum"}, 0.0068379248),
    ("ecpo_released", {"beta": 2.5, "gamma": 0.05}, 0.2866613449),
    ("cpo_eq17", {"beta": 2.5, "gamma": 0.05}, 0.4131228180),
]


@pytest.mark.parametrize(("name", "given", "expected"), GOLDEN)
def test_pair_g1(name, given, expected):
    assert value(name, *G1, **given) == pytest.approx(expected, abs=1e-10)


def test_pair_g1_where_a_row_has_a_part_or_state():
    # orpo's likelihood term on this pair is 12/10 nats.
    assert value("orpo", *G1, lam=0.1) - 1.2 == pytest.approx(0.0630854886, abs=1e-10)
    state = {"multiplier": torch.ones(1, dtype=torch.float64)}
    assert value("cpo_dual", *G1, state=state, beta=0.5) == pytest.approx(0.2519290813, abs=1e-10)


# (a, b, a0, b0), lengths 4 and 9: a < a0 (dpop), delta_ref > 0 (hypo, clip), delta < m (slic), alpha != 1/2.
OTHER = pair(-7.0, -6.5, -5.0, -9.0, 4, 9)
OTHER_VALUES = [
    ("dpop", {"beta": 0.1, "lam": 5.0}, math.log1p(math.exp(0.1 * (4.5 + 5 * 2)))),
    ("hypo", {"beta": 0.1}, math.log1p(math.exp(0.1 * 4.5))),
    ("cpo_clip", {"beta": 2.0}, math.log1p(math.exp(-2 * ((-7 / 4 + 6.5 / 9) - 0)))),
    ("slic", {"margin": 1.0, "lam": 0.5}, 1 + 0.5 + 0.5 * 7),
    ("contrastive_cpo", {"beta": 0.1, "lam": 2.0}, math.log1p(math.exp(0.05)) + 2 * 7 / 4),
    ("dpo", {"beta": 0.1, "rpo_alpha": 2.0}, math.log1p(math.exp(0.45)) + 2 * 7 / 4),
    ("fdpo_alpha", {"beta": 0.1, "alpha": 0.25},
     math.log1p(math.exp(-0.1 * 4 * ((1 - math.exp(0.5)) - (1 - math.exp(-0.625)))))),
    ("hinge", {"beta": 0.1}, 1.45),
    ("chi_po", {"beta": 0.1, "r_max": 0.1}, math.log1p(math.exp(0.2))),
    ("sympo", {"beta": 0.1, "form": "ramp"}, (1 + 0.45) / 2),
    ("sympo", {"beta": 0.1, "form": "unhinged"}, 1.45),
    ("kto_pair", {"beta": 0.1},
     1 / (1 + math.exp(-0.1 * (2.5 + 2))) + 1 / (1 + math.exp(-0.1 * (2.5 - 0)))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "expected"), OTHER_VALUES)
def test_branches_that_g1_does_not_reach(name, given, expected):
    assert value(name, *OTHER, **given) == pytest.approx(expected, abs=1e-12)


def test_kto_by_hand():
    # Log-ratios 2 and -2.5; mismatched log-ratios 1 and 5 give z0 = 3.
    policy = pairs([-12.0] * 2, [-15.5] * 2, [10] * 2, [12] * 2, {"mismatched": torch.tensor([-30.0, -40.0]).double()})
    reference = pairs(
        [-14.0] * 2, [-13.0] * 2, [10] * 2, [12] * 2, {"mismatched": torch.tensor([-31.0, -45.0]).double()}
    )
    down = 1.2 / (1 + math.exp(0.1 * (2 - 3)))
    up = 0.8 / (1 + math.exp(0.1 * (3 + 2.5)))
    given = {"beta": 0.1, "desirable_weight": 1.2, "undesirable_weight": 0.8}
    assert value("kto", policy, reference, **given) == pytest.approx((down + up) / 2, abs=1e-12)


def test_states_move_as_their_rows_say():
    policy, reference = (
        pairs([-1.0, -1.0], [-4.0, -8.0], [2, 2], [2, 2]),
        pairs([-3.0, -2.0], [-3.0, -4.0], [2, 2], [2, 2]),
    )
    lane = torch.full((1,), 0.5, dtype=torch.float64)
    # bco: rewards 2, 1, -1, -4 at beta 1, mean -1/2.
    bco = OBJECTIVES["bco"].loss(policy, reference, state={"shift": lane}, beta=1.0)
    assert bco.state["shift"].tolist() == pytest.approx([0.9 * 0.5 + 0.1 * -0.5])
    # beta_dpo: margins 3 and 5, mean 4; the pair at 3 is the nearer to 0.5 and the one kept at rho 1/2.
    beta = OBJECTIVES["beta_dpo"].loss(policy, reference, state={"mean_margin": lane}, beta=1.0, alpha=0.2, rho=0.5)
    assert beta.state["mean_margin"].tolist() == pytest.approx([0.9 * 0.5 + 0.1 * 4])
    assert beta.loss.tolist() == pytest.approx([math.log1p(math.exp(-(1 + 0.2 * 3.5) * 3))] * 2)
    # cpo_dual: delta 3 and 7; the margin of 5 is short by 2 on the first pair only.
    start = torch.tensor([0.0, 0.3], dtype=torch.float64)
    dual = OBJECTIVES["cpo_dual"].loss(policy, reference, state={"multiplier": start}, beta=1.0, margin=5.0)
    assert dual.state["multiplier"].tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("name", [name for name in NAMES if OBJECTIVES[name].step0])
def test_closed_form_at_step_zero(name):
    row = OBJECTIVES[name]
    for changed in ({"rpo_alpha": 0.7}, {"reduction": "sum"}, {"beta": 0.37}):
        if changed.keys() <= row.hyperparameters.keys():
            starts_at_step_zero(row, changed)


def test_step_zero_table_of_the_design():
    def at_start(name, **given):
        row = OBJECTIVES[name]
        full = {key: knob.default for key, knob in row.hyperparameters.items()} | given
        return row.step0(full, StepZero(-14.0, -13.0, 10, 12))

    assert at_start("ipo", beta=0.1) == pytest.approx(25)
    assert at_start("sppo", beta=0.1) == pytest.approx(50)
    assert at_start("exo", eps=1e-3) == pytest.approx(2.7612307091, abs=1e-10)
    assert at_start("ropo", alpha=14.0) == pytest.approx(1.9147388538, abs=1e-10)
    assert at_start("discopop") == pytest.approx(0.8465735903, abs=1e-10)
    assert at_start("nca") == at_start("bco") == pytest.approx(1.3862943611, abs=1e-10)
    assert at_start("kto") == at_start("sympo") == 0.5
    for name in ("hypo", "cpo_clip", "cpo_smooth", "cpo_eq17"):
        assert at_start(name) > math.log(2)
    assert at_start("ecpo_released") < math.log(2)


@pytest.mark.parametrize("name", BATCH_LEVEL)
def test_batch_level_rows_record_log_two_at_step_zero(name):
    policy, _ = batch((2, 5))
    base = OBJECTIVES[name].loss(policy, policy).base_loss
    assert base.flatten().tolist() == pytest.approx([math.log(2)] * 10)


PULL = [("dpo", {}, 0.05), ("cdpo", {"eps": 0.1}, 0.04), ("robust_dpo", {"eps": 0.1}, 0.0625), ("hinge", {}, 0.1),
        ("sympo", {}, 0.025), ("ipo", {}, 10.0), ("hypo", {}, 0.1 / (1 + math.exp(-0.1)))]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "expected"), PULL)
def test_pull_at_step_zero(name, given, expected):
    policy, reference = pair(-14.0, -13.0, -14.0, -13.0)
    policy.chosen.requires_grad_()
    OBJECTIVES[name].loss(policy, reference, beta=0.1, **given).loss.sum().backward()
    assert -policy.chosen.grad.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_target_is_where_a_loss_of_the_margin_expects_it(name):
    """A logistic margin loss is -log sigmoid(beta (delta - T)), with T from the measures' table of targets."""
    if name not in LOGISTIC_MARGIN or name == "dpop":
        return
    hyperparameters = {key: knob.default for key, knob in OBJECTIVES[name].hyperparameters.items()}
    if name == "contrastive_cpo":
        hyperparameters["lam"] = 0.0
    _, reference = batch((8,), seed=5)
    columns = {
        "reference_chosen": reference.chosen.numpy(), "reference_rejected": reference.rejected.numpy(),
        "chosen_len": reference.chosen_len.numpy(), "rejected_len": reference.rejected_len.numpy(),
        "multiplier": np.zeros(8),
    }  # fmt: skip
    # A policy with delta = 0 in the row's own reduction has loss softplus(beta T).
    even = -torch.full((8,), 3.0, dtype=torch.float64)
    lengths = (reference.chosen_len, reference.rejected_len)
    mean = OBJECTIVES[name].reduction == "mean"
    policy = PairLogps(even * lengths[0], even * lengths[1], *lengths) if mean else PairLogps(even, even, *lengths)
    columns |= {"policy_chosen": policy.chosen.numpy(), "policy_rejected": policy.rejected.numpy()}
    loss = OBJECTIVES[name].loss(policy, reference, **hyperparameters).loss
    assert loss.tolist() == pytest.approx(bridge_threshold(name, columns, hyperparameters).tolist(), rel=1e-9)


def test_numeric_traps():
    worst = pair(-10_000.0, 0.0, 0.0, -10_000.0, 1, 1)
    best = pair(0.0, -10_000.0, -10_000.0, 0.0, 1, 1)
    assert value("discopop", *worst, beta=0.1) == pytest.approx(2000.0)  # m e^-z is 0 x inf when taken apart
    assert value("dpo", *worst, beta=0.1) == pytest.approx(2000.0)
    assert value("dpo", *best, beta=0.1) == pytest.approx(0.0, abs=1e-300)
    assert value("robust_dpo", *best, beta=0.1, eps=0.1) < -100  # a negative loss is legal
    for name in ("orpo", "ecpo_released", "cpo_eq17", "chi_po", "fdpo_forward_kl", "fdpo_alpha", "alphapo"):
        assert math.isfinite(value(name, *worst)) and math.isfinite(value(name, *best))


def test_half_precision_is_computed_in_float32():
    policy, reference = batch((4,), dtype=torch.float32)
    half = [
        PairLogps(x.chosen.bfloat16(), x.rejected.bfloat16(), x.chosen_len, x.rejected_len) for x in (policy, reference)
    ]
    wide = [PairLogps(x.chosen.float(), x.rejected.float(), x.chosen_len, x.rejected_len) for x in half]
    got = OBJECTIVES["dpo"].loss(*half).loss
    assert got.dtype == torch.float32
    assert torch.equal(got, OBJECTIVES["dpo"].loss(*wide).loss)
