"""Rows of family rl: they say that they have no loss of pairs, what runs them exists and reads their knobs."""

from __future__ import annotations

import inspect

import pytest

from harness.config.cells import world_defaults
from harness.objectives import OBJECTIVES, resolve
from harness.rlhf.constrained import visit
from harness.rlhf.registry import ALGORITHMS
from harness.types import InputError
from tests.objectives.cases import RL_NAMES, batch

# Knobs that the loop reads, whatever the algorithm.
OF_THE_LOOP = {
    "samples", "iterations", "prompts", "learning_rate", "reward", "reward_scale", "reward_clip", "missing_eos_penalty",
    "length_penalty", "kl_controller", "kl_target", "kl_gain", "kl_end", "epochs", "minibatches", "pairs",
}  # fmt: skip


def test_the_family_holds_what_the_design_asks_for():
    wanted = {"ppo", "rloo", "grpo", "reinforce", "best_of_n", "online_dpo", "constrained_rlhf"}
    assert set(RL_NAMES) == wanted
    assert set(ALGORITHMS) == wanted - {"best_of_n"}  # which trains nothing


@pytest.mark.parametrize("name", RL_NAMES)
def test_there_is_no_loss_of_given_pairs(name):
    with pytest.raises(InputError, match=f"objective '{name}' is of family rl"):
        OBJECTIVES[name].loss(*batch((2,)))
    with pytest.raises(InputError, match="cannot be mixed"):
        resolve("mixture", {"mixture": [{"name": name}, {"name": "dpo"}]})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_hyperparameter_is_read_by_the_algorithm_or_the_loop(name):
    """Under the row's own name, with the row's own default: what a function defaults to is what the row says."""
    row, algorithm = OBJECTIVES[name], ALGORITHMS[name]
    functions = [algorithm.targets, algorithm.loss, *([visit] if algorithm.constrained else [])]
    read = {
        key: parameter
        for function in functions
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key != "k"
    }
    assert set(row.hyperparameters) - OF_THE_LOOP - {"beta"} <= set(read)
    assert set(read) <= set(row.hyperparameters)
    for key, parameter in read.items():
        assert parameter.default is parameter.empty or parameter.default == row.hyperparameters[key].default, key


@pytest.mark.parametrize("name", RL_NAMES)
def test_defaults_of_the_embedded_world_are_valid(name):
    given = world_defaults(name, {})
    assert set(given) <= set(OBJECTIVES[name].hyperparameters)
    assert dict(resolve(name, given).hyperparameters) | given == dict(resolve(name, given).hyperparameters)
    assert ("beta" in given) == (name != "best_of_n")
