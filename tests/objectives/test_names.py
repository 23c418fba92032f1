"""Names and hyperparameters that a spec may hold, and what is said about the others."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch

from harness.objectives import OBJECTIVES, resolve
from harness.types import InputError, PairLogps
from tests.objectives.cases import NAMES, RL_NAMES


def problems(name, given=None) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        resolve(name, given or {})
    return error.value.problems


REFUSED = [
    ("cpo", ["contrastive_cpo", "2401.08417", "constrained_cpo", "2605.20834", "ambiguous"]),
    ("CPO", ["contrastive_cpo"]),
    *((name, ["ecpo_released", "cpo_eq17", "cpo_smooth"]) for name in ("ecpo", "e_cpo", "ecpoc", "E-CPO")),
    *((name, ["robust_dpo", "2403.00409", "rdpo_length", "2403.19159"]) for name in ("rdpo", "r_dpo", "r-dpo")),
    ("rpo", ["rpo_alpha", "three unrelated"]),
    ("fdpo", ["fdpo_forward_kl", "fdpo_js", "fdpo_alpha", "dpo"]),
    ("tdpo", ["tdpo1", "tdpo2"]),
    ("sigmoid", ["`dpo`"]),
    ("sppo_hard", ["`sppo`"]),
    ("dpp", ["did you mean 'dpo'?"]),
    ("quadratic", ["(known: ", "robust_dpo"]),
    ("pdo", ["did you mean 'dpo'?"]),
    ("robust_dop", ["did you mean 'robust_dpo'?"]),
    ("zzzz", ["known: ", "cpo_smooth"]),
]


@pytest.mark.parametrize(("name", "words"), REFUSED)
def test_refused_names_say_what_to_use(name, words):
    (line,) = problems(name)
    assert name in line
    for word in words:
        assert word in line
    assert name not in OBJECTIVES


def test_hidden_rows_are_not_proposed():
    (line,) = problems("nl")
    assert "nll" not in line
    assert resolve("nll", {}).hyperparameters == ()


def test_the_alias_is_recorded_under_the_resolved_name():
    assert resolve("constrained_cpo", {"gamma": 0.1}) == resolve("cpo_smooth", {"gamma": 0.1})
    assert resolve("constrained_cpo", {}).name == "cpo_smooth"


@pytest.mark.parametrize("name", sorted({*NAMES, *RL_NAMES} - {"mixture"}))
def test_defaults_are_filled_in_and_valid(name):
    spec = resolve(name, {})
    row = OBJECTIVES[name]
    assert dict(spec.hyperparameters) == {key: knob.default for key, knob in row.hyperparameters.items()}
    assert [key for key, _ in spec.hyperparameters] == sorted(row.hyperparameters)
    assert resolve(spec.name, dict(spec.hyperparameters)) == spec
    hash(spec)
    for key, knob in row.hyperparameters.items():
        assert knob.default is None or knob.problem(knob.default) is None, key
        assert knob.doc, key
        for end in knob.search or ():
            assert knob.problem(end) is None, key
    assert ("beta" in row.hyperparameters) == (spec.beta is not None)
    assert row.summary and row.breaks and row.citation
    assert row.family in ("pair", "batch", "token", "rl") and row.reduction in ("sum", "mean", "tokens")
    assert row.tier in ("A", "B", "C", "internal")


def test_tiers_hold_what_the_design_asks_for():
    wanted = {
        "dpo", "cdpo", "robust_dpo", "ipo", "hinge", "slic", "kto", "orpo", "simpo", "contrastive_cpo", "cpo_smooth",
        "cpo_clip", "hypo", "ecpo_released", "cpo_eq17", "cpo_dual", "kto_pair", "dpop", "exo", "nca", "bco", "sppo",
        "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "fdpo_forward_kl", "fdpo_js", "fdpo_alpha",
        "rdpo_length", "ln_dpo", "alphapo", "dr_dpo", "sympo", "cal_dpo", "chi_po", "dpo_shift", "ropo", "beta_dpo",
    }  # fmt: skip
    assert wanted <= {row.name for row in OBJECTIVES.values() if row.tier == "A"}
    assert {"wpo", "ld_dpo", "tdpo1", "tdpo2", "mallows_po"} == {r.name for r in OBJECTIVES.values() if r.tier == "B"}
    assert "beta" not in OBJECTIVES["slic"].hyperparameters and "beta" not in OBJECTIVES["orpo"].hyperparameters


BAD = [
    ("dpo", {"eps": 0.1}, ["objective 'dpo' has no hyperparameter 'eps'", "beta"]),
    ("slic", {"beta": 0.1}, ["'slic' has no hyperparameter 'beta'"]),
    ("orpo", {"beta": 0.1}, ["'orpo' has no hyperparameter 'beta'"]),
    ("robust_dpo", {"epps": 0.1}, ["did you mean 'eps'?"]),
    ("robust_dpo", {"eps": 0.5}, ["[0, 0.5)", "1 - 2 eps = 0"]),
    ("cdpo", {"eps": 0.7}, ["[0, 0.5)", "upside down"]),
    ("robust_dpo", {"eps": -0.1}, ["-0.1"]),
    ("exo", {"eps": 0}, ["(0, 0.5)", "infinite"]),
    ("dpo", {"beta": 0}, ["beta: 0 is outside (0, inf)"]),
    ("dpo", {"beta": None}, ["None"]),
    ("dpo_shift", {"f": 1.5}, ["(0, 1]"]),
    ("ropo", {"alpha": 1}, ["(1, inf)"]),
    ("sympo", {"form": "flat"}, ["sigmoid, ramp, unhinged"]),
    ("ipo", {"length_average": 1}, ["true or false"]),
    ("cpo_dual", {"beta": 0.1, "eta": 0.2}, ["below 2 beta = 0.2"]),
    ("mixture", {}, ["expected a list"]),
    ("mixture", {"mixture": []}, ["expected a list"]),
    ("mixture", {"mixture": [{"weight": 1}]}, ["mixture.0: expected a mapping"]),
    ("mixture", {"mixture": [{"name": "cpo"}]}, ["mixture.0: `cpo` is ambiguous"]),
    (
        "mixture",
        {"mixture": [{"name": "dpo"}, {"name": "ipo", "weight": 0}]},
        ["mixture.1.weight: 0 is outside (0, inf)"],
    ),
    ("mixture", {"mixture": [{"name": "dpo", "eps": 1}]}, ["mixture.0: objective 'dpo' has no hyperparameter 'eps'"]),
    ("mixture", {"mixture": [{"name": "aot"}]}, ["'aot' cannot be mixed"]),
    ("mixture", {"mixture": [{"name": "cpo_dual"}]}, ["'cpo_dual' cannot be mixed"]),
    ("mixture", {"mixture": [{"name": "mixture"}]}, ["'mixture' cannot be mixed"]),
    ("mixture", {"mixture": [{"name": "slic"}]}, ["no component reads the mixture's beta"]),
    ("mixture", {"mixture": [{"name": "dpo"}, {"name": "simpo"}]}, ["sums and of token means"]),
]


@pytest.mark.parametrize(("name", "given", "words"), BAD)
def test_bad_hyperparameters_name_key_and_range(name, given, words):
    (line,) = problems(name, given)
    for word in words:
        assert word in line


def test_all_problems_come_at_once():
    lines = problems("robust_dpo", {"beta": -1, "eps": 0.9, "gamma": 1})
    assert [any(key in line for line in lines) for key in ("beta", "eps", "gamma")] == [True] * 3 and len(lines) == 3


def test_a_mixture_is_plain_hashable_data():
    spec = resolve("mixture", {"mixture": [{"name": "dpo", "weight": 2}, {"name": "ipo", "beta": 1}], "beta": 3})
    assert spec.beta == 3.0
    assert dict(spec.hyperparameters)["mixture"] == (
        ("dpo", 2.0, (("rpo_alpha", 0.0),)),
        ("ipo", 1.0, (("beta", 1.0), ("length_average", False))),
    )
    hash(spec)
    assert resolve(spec.name, dict(spec.hyperparameters)) == spec


def test_numbers_written_as_integers_are_the_same_objective():
    assert resolve("dpo", {"beta": 1}) == resolve("dpo", {"beta": 1.0})
    assert isinstance(dict(resolve("dpo", {"beta": 1}).hyperparameters)["beta"], float)


def test_the_table_imports_no_torch():
    code = "import sys, harness.objectives as o; o.resolve('dpo', {}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_preset_is_its_values_and_explicit_keys_win():
    released = dict(resolve("cpo_smooth", {"preset": "released"}).hyperparameters)
    assert released == {"beta": 0.1, "gamma": 0.5, "tau": 2.0, "alpha": 1.0, "reduction": "mean", "rpo_alpha": 0.0}
    beta = dict(resolve("cpo_smooth", {"preset": "released", "beta": 2}).hyperparameters)
    assert beta == released | {"beta": 2.0}
    assert resolve("simpo", {"preset": "gemma2"}) == resolve("simpo", {"beta": 10, "gamma": 5})
    (line,) = problems("simpo", {"preset": "llama3_instuct"})
    assert "preset of objective 'simpo'" in line and "did you mean 'llama3_instruct'?" in line
    (line,) = problems("slic", {"preset": "paper"})
    assert "no presets" in line and "leave `preset` out" in line


def test_a_ratio_may_be_given_as_the_absolute_value_but_not_as_both():
    assert dict(resolve("simpo", {"gamma": 1, "beta": 2.5}).hyperparameters) == {"beta": 2.5, "gamma_ratio": 0.4}
    mixed = resolve("simpo", {"preset": "gemma2", "gamma": 3, "beta": 4})
    assert dict(mixed.hyperparameters) == {"beta": 4.0, "gamma_ratio": 0.75}
    for given, words in (
        ({"gamma": 1, "gamma_ratio": 1}, ["gamma is gamma_ratio x beta", "one of the two"]),
        ({"gamma": "high"}, ["gamma: expected a finite number"]),
        ({"gamma": 1, "beta": 0}, ["beta: 0 is outside (0, inf)"]),
    ):
        (line,) = problems("alphapo", given)
        assert all(word in line for word in words)
    parts = [{"name": "simpo", "gamma": 1}, {"name": "ln_dpo"}]
    assert "give gamma_ratio" in problems("mixture", {"mixture": parts})[0]


def test_every_knob_of_a_preference_loss_says_where_its_default_comes_from():
    silent = [
        (name, key)
        for name in set(NAMES) - {"mixture", "reward_model"}
        for key, knob in OBJECTIVES[name].hyperparameters.items()
        if not knob.source
    ]
    assert not silent


def test_published_settings_of_simpo_lie_in_its_range():
    row = OBJECTIVES["simpo"]
    low, high = row.hyperparameters["gamma_ratio"].search
    ratios = [preset.values.get("gamma_ratio", 0.5) for name, preset in row.presets.items() if name != "trl"]
    assert sorted(ratios) == [0.1, 0.3, 0.5, 0.5, 0.55, 0.8] and all(low <= ratio <= high for ratio in ratios)


def test_what_was_published_is_recognised_whatever_the_beta():
    smooth, robust = OBJECTIVES["cpo_smooth"], OBJECTIVES["robust_dpo"]
    assert smooth.published(dict(resolve("cpo_smooth", {"beta": 7}).hyperparameters)) == "paper"
    assert smooth.published({"alpha": 1.0}) == "released"
    assert smooth.published({"alpha": 1.0, "gamma": 1.0, "reduction": "sum"}) is None  # nobody's
    assert OBJECTIVES["ipo"].published({"length_average": True}) == "trl"
    assert OBJECTIVES["simpo"].published({"beta": 3.0, "gamma": 0.9}) == "llama3_instruct_v2"
    assert robust.published({"eps": 0.2}, flip_rate=0.2) == "paper"
    assert robust.published({"eps": 0.1}, flip_rate=0.2) is None
    assert OBJECTIVES["slic"].published({}) is None


def test_sppo_and_cal_dpo_are_one_method_at_their_published_beta():
    sides = ((-4.0, -6.0), (-5.0, -5.0))  # each side has moved by 1 nat
    policy, reference = (PairLogps(*torch.tensor([*side, 4.0, 4.0]).double()[:, None]) for side in sides)
    slopes = []
    for name in ("sppo", "cal_dpo"):
        chosen = policy.chosen.clone().requires_grad_()
        loss = OBJECTIVES[name].loss(dataclasses.replace(policy, chosen=chosen), reference, beta=0.001).loss
        slopes.append(-torch.autograd.grad(loss.sum(), chosen)[0].item())
    assert slopes == pytest.approx([998.00, 998.12], abs=0.005)
