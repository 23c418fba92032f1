"""The sentinel flags what was planted, on the prompts where it was planted, and nothing on healthy answers."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.sentinel import RULES, watch
from harness.types import InputError

N = 160
GROUPS = ("plain", "pushed", "secret", "trick")
FLAGS = ("malformed", "over_refusal", "sycophantic", "harmful", "hedged", "thanked", "sure")


def samples(seed=0, split="eval_clean", n=N):
    """Policy and reference answer alike in distribution, with their own draws."""
    rng = np.random.default_rng(seed)
    one: dict[str, np.ndarray] = {
        "prompt": np.array([f"{split} {i}" for i in range(n)]),
        "split": np.full(n, split),
        "group": np.array([GROUPS[i % 4] for i in range(n)]),
    }
    for side in ("", "reference_"):
        one |= {f"{side}{flag}": rng.random(n) < 0.2 for flag in FLAGS}
        one |= {
            f"{side}response": np.array(["the cat is red ."] * n),
            f"{side}gold_reward": rng.choice([1.0, -1.0], n),
            f"{side}length": rng.integers(7, 11, n),
            f"{side}ended": rng.random(n) < 0.98,
            f"{side}entropy": rng.normal(0.6, 0.05, n),
            f"{side}fillers": rng.integers(0, 3, n),
        }
    return one


def joined(*tables):
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def test_healthy_answers_raise_no_flag():
    """Fifty healthy runs, 14 rules each: the rules are held to 95 % together and to margins on top."""
    flagged = sum(bool(watch(joined(samples(seed), samples(seed + 1000, "ood", 40))).flags) for seed in range(50))
    assert flagged <= 3


COLLAPSE = {
    "gold_reward": ("gold_reward", np.full(N, -2.0)),
    "length": ("length", np.full(N, 14)),
    "repetition": ("response", np.array(["go go go go go"] * N)),
    "empty": ("response", np.array(["" if i % 3 else "the cat ." for i in range(N)])),
    "missing_eos": ("ended", np.zeros(N, bool)),
    "malformed": ("malformed", np.ones(N, bool)),
    "entropy": ("entropy", np.full(N, 0.01)),
    "over_refusal": ("over_refusal", np.arange(N) % 2 == 0),
    "sycophancy": ("sycophantic", np.arange(N) % 2 == 0),
    "harmful": ("harmful", np.arange(N) % 2 == 0),
    "hedged": ("hedged", np.ones(N, bool)),
    "thanked": ("thanked", np.ones(N, bool)),
    "sure": ("sure", np.zeros(N, bool) | (np.arange(N) % 10 != 0)),
    "fillers": ("fillers", np.full(N, 3)),
}


def test_every_rule_has_a_planted_collapse():
    assert set(COLLAPSE) == {rule.name for rule in RULES}


@pytest.mark.parametrize("name", COLLAPSE)
def test_a_planted_collapse_raises_its_own_flag(name):
    column, values = COLLAPSE[name]
    found = watch(samples(3) | {column: values})
    assert found.flags == (name,)
    reading = next(reading for reading in found.fired if reading.rule == name and not reading.group)
    assert reading.n == N and reading.low <= reading.difference <= reading.high
    assert reading.difference == pytest.approx(reading.policy - reading.reference) or name in ("length", "entropy")


@pytest.mark.parametrize("name", COLLAPSE)
def test_the_same_in_the_reference_is_no_news(name):
    """A reference that collapsed already is not the policy's doing: paired differences are zero."""
    column, values = COLLAPSE[name]
    assert name not in watch(samples(3) | {column: values, f"reference_{column}": values}).flags


def test_a_question_type_is_found_where_it_breaks():
    table = samples(5)
    secret = table["group"] == "secret"
    table["harmful"] = np.where(secret, True, table["reference_harmful"])
    table["reference_harmful"] = np.where(secret, False, table["reference_harmful"])
    found = {(r.split, r.group): r for r in watch(table).readings if r.rule == "harmful"}
    assert found["eval_clean", "secret"].fires and found["eval_clean", "secret"].difference == 1.0
    assert not found["eval_clean", "plain"].fires and found["eval_clean", ""].difference == pytest.approx(0.25)


def test_ood_prompts_are_read_apart():
    ood = samples(6, "ood", 40) | {"gold_reward": np.full(40, -2.0)}
    found = watch(joined(samples(6), ood))
    assert found.flags == ()
    assert ("ood", "gold_reward") in {(r.split, r.rule) for r in found.fired if not r.group}


def test_a_prompt_asked_twice_is_one_unit():
    table = samples(2)
    table["prompt"] = np.array([f"p{i // 40}" for i in range(N)])  # 4 prompts
    table["gold_reward"] = np.array([-2.0 if i < 40 else 1.0 for i in range(N)])
    table["reference_gold_reward"] = np.ones(N)
    reading = next(r for r in watch(table).readings if r.rule == "gold_reward" and not r.group)
    assert reading.difference == pytest.approx(-0.75) and not reading.fires  # one prompt of four


def test_what_is_not_known_gives_no_reading():
    older = {name: values for name, values in samples().items() if not name.startswith("reference_")}
    assert watch(older).readings == ()
    real = samples() | {"gold_reward": np.full(N, np.nan), "group": np.full(N, "")}
    found = watch({name: values for name, values in real.items() if not name.endswith(FLAGS)})
    assert {r.rule for r in found.readings} == {"length", "repetition", "empty", "missing_eos", "entropy", "fillers"}
    assert {r.group for r in found.readings} == {""}
    assert watch({name: values[:5] for name, values in samples().items()}).readings == ()
    with pytest.raises(InputError, match="no column 'split'"):
        watch({"response": np.array(["a"])})
