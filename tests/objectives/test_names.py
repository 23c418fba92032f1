"""Names and hyperparameters that a spec may hold, and what is said about the others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.objectives import OBJECTIVES, resolve
from harness.types import InputError
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
