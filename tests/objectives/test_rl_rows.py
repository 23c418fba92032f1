"""Rows of family rl: they say that they have no loss of pairs, what runs them exists and reads their knobs."""

from __future__ import annotations

import inspect

import pytest

from harness.objectives import OBJECTIVES, resolve
from harness.rlhf.algorithms import Algorithm
from harness.spec_cells import world_defaults
from harness.types import InputError
from tests.objectives.cases import RL_NAMES, batch

ALGORITHMS = tuple(name for name in RL_NAMES if name != "best_of_n")
# Knobs that the loop reads, whatever the algorithm.
OF_THE_LOOP = {
    "samples", "iterations", "prompts", "learning_rate", "reward", "reward_scale", "reward_clip", "missing_eos_penalty",
    "length_penalty", "kl_controller", "kl_target", "kl_gain", "kl_end", "epochs", "minibatches", "margin", "eta",
    "pairs", "k",
}  # fmt: skip


def test_the_family_holds_what_the_design_asks_for():
    wanted = {"ppo", "rloo", "grpo", "reinforce", "best_of_n", "online_dpo", "constrained_rlhf"}
    assert set(RL_NAMES) == wanted
    assert {"ppo", "rloo", "grpo", "reinforce"} <= set(ALGORITHMS)


@pytest.mark.parametrize("name", RL_NAMES)
def test_there_is_no_loss_of_given_pairs(name):
    with pytest.raises(InputError, match=f"objective '{name}' is of family rl"):
        OBJECTIVES[name].loss(*batch((2,)))
    with pytest.raises(InputError, match="cannot be mixed"):
        resolve("mixture", {"mixture": [{"name": name}, {"name": "dpo"}]})


@pytest.mark.parametrize("name", RL_NAMES)
def test_what_runs_it_exists(name):
    found = OBJECTIVES[name].implementation()
    assert isinstance(found, Algorithm) == (name in ALGORITHMS)
    assert isinstance(found, Algorithm) or callable(found)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_hyperparameter_is_read_by_the_algorithm_or_the_loop(name):
    """Under the row's own name, with the row's own default: what a function defaults to is what the row says."""
    row, algorithm = OBJECTIVES[name], OBJECTIVES[name].implementation()
    read = {
        key: parameter
        for function in (algorithm.targets, algorithm.loss)
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert set(row.hyperparameters) - OF_THE_LOOP - {"beta"} <= set(read)
    read.pop("k", None)  # samples a prompt, as the loop hands it on
    assert set(read) <= set(row.hyperparameters)
    for key, parameter in read.items():
        assert parameter.default == row.hyperparameters[key].default, key


@pytest.mark.parametrize("name", RL_NAMES)
def test_defaults_of_the_embedded_world_are_valid(name):
    given = world_defaults(name, {})
    assert set(given) <= set(OBJECTIVES[name].hyperparameters)
    assert dict(resolve(name, given).hyperparameters) | given == dict(resolve(name, given).hyperparameters)
    assert ("beta" in given) == (name != "best_of_n")
