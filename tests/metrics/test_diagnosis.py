"""One run's records to its divergence types: each construction is named by its own type only."""

from __future__ import annotations

import numpy as np
import pytest
from planted import full, records, stack

from harness.metrics.diagnosis import diagnose
from harness.types import InputError

N, BETA = 200, 2.0
DPO = ("dpo", {"beta": BETA})
RNG = np.random.default_rng(5)
RIGHT = np.abs(RNG.normal(0, 1, N)) + 0.2  # a well-aligned reference


def at(split, step, delta, reference, labels=None, pull=None, prompts=None):
    """Rows of a split at a step with dpo losses and the pulls that go with them (or the `pull` given)."""
    delta, reference = np.asarray(delta, float), np.asarray(reference, float)
    rows = full(
        split, step, records(delta, reference, clean_label=np.ones(N, np.int8) if labels is None else labels), BETA
    )
    rows["corrupted"] = rows["clean_label"] < 0
    slope = BETA / (1 + np.exp(BETA * (delta - reference))) if pull is None else np.full(N, pull)
    rows |= {"grad_w": slope, "grad_l": slope}
    rows["prompt_id"] = np.array([f"q{i}" for i in range(N)] if prompts is None else prompts)
    return rows


def run(ends, held_out, labels=None, **extra):
    """A run of two or more checkpoints: (step, delta) on observed training pairs and on held-out ones."""
    parts = [at("train_observed", step, delta, ends[0][1], labels, **extra) for step, delta in ends]
    parts += [at("eval_clean", step, delta, held_out[0][1], **extra) for step, delta in held_out]
    return stack(*parts)


def test_a_clean_run_that_improves_has_no_type():
    found = diagnose(run([(0, RIGHT), (10, RIGHT + 3)], [(0, RIGHT), (10, RIGHT + 2)]), *DPO)
    assert found.types == () and found.finite
    assert set(found.premature) == set(found.reversal) == {"train_observed", "eval_clean"} and not found.memorisation


def test_premature_convergence_is_named_with_where_it_starts():
    """All pairs move the right way and stop short of right: D1 from the step on at which the pull is spent."""
    reference = -np.full(N, 6.0)
    path = [(0, reference), (5, reference + 1), (20, reference + 2), (80, reference + 3)]
    found = diagnose(run(path, path), *DPO)
    assert found.types == ("D1",)
    for split in ("train_observed", "eval_clean"):
        one = found.premature[split]
        # sigmoid(-4) / sigmoid(0) = 3.6 %; sigmoid(-2) / sigmoid(0) = 24 %
        assert one.last.fires() and one.starts == 20 and one.last.zone_low > 0.9
        assert not found.reversal[split].event


def test_population_labels_are_premature_and_never_a_reversal():
    """The violated pair at its true optimum: its averaged loss falls, its pull with it, the ranking stays."""
    win, beta, delta = 0.7310585786300049, 0.5, -4.0
    path = [delta]
    for _ in range(400):
        z = beta * (path[-1] + 4.0)
        path.append(path[-1] + beta * (win / (1 + np.exp(z)) - (1 - win) / (1 + np.exp(-z))))
    parts = []
    for step in (0, 20, 40, 400):
        z = beta * (path[step] + 4.0)
        rows = at("eval_clean", step, np.full(N, path[step]), np.full(N, -4.0),
                  pull=beta * (win / (1 + np.exp(z)) - (1 - win) / (1 + np.exp(-z))))  # fmt: skip
        parts.append(rows | {"base_loss": np.full(N, win * np.logaddexp(0, -z) + (1 - win) * np.logaddexp(0, z))})
    found = diagnose(stack(*parts), "dpo", {"beta": beta})
    assert found.types == ("D1",) and found.premature["eval_clean"].starts == 40
    assert set(found.premature) == {"eval_clean"}


def test_hard_labels_on_the_same_pairs_have_no_type():
    reference = np.full(N, -4.0)
    ends = [(0, reference), (10, reference + 3.9)]
    rows = run(ends, ends)
    slope = 0.5 / (1 + np.exp(0.5 * (rows["policy_chosen"] - rows["policy_rejected"] + 4.0)))
    found = diagnose(rows | {"grad_w": slope, "grad_l": slope}, "dpo", {"beta": 0.5})
    assert found.types == () and found.premature["eval_clean"].last.pull > 0.24


def test_true_reversal_is_d2_alone():
    end = RIGHT + 3.0
    end[:20] = -0.1
    found = diagnose(run([(0, RIGHT), (10, RIGHT + 3)], [(0, RIGHT), (10, end)]), *DPO)
    assert found.types == ("D2",) and found.reversal["eval_clean"].broken == 20
    assert not found.reversal["train_observed"].event


def test_memorised_noise_is_d3_alone():
    labels = np.where(np.arange(N) % 4 == 0, -1, 1).astype(np.int8)
    reference = labels * RIGHT
    end = RIGHT + 1.0
    held_out = at("eval_clean", 10, RIGHT + 1, RIGHT)
    held_out["policy_chosen"] = np.where(
        np.arange(N) % 5 == 0, held_out["policy_chosen"] - 9, held_out["policy_chosen"]
    )
    examples = stack(
        at("train_observed", 0, reference, reference, labels), at("train_observed", 10, end, reference, labels),
        at("eval_clean", 0, RIGHT, RIGHT), held_out | {"base_loss": at("eval_clean", 0, RIGHT, RIGHT)["base_loss"]},
    )  # fmt: skip
    found = diagnose(examples, *DPO)
    assert found.types == ("D3",) and set(found.memorisation) == {"train_clean", "eval_clean"}
    assert all(one.fires() for one in found.memorisation.values())
    # The clean labels of the training pairs are the observed ones turned: every flipped pair went from right to wrong.
    assert found.memorisation["train_clean"].broken == (labels < 0).sum()


def test_pairs_of_one_prompt_are_no_new_evidence():
    end = RIGHT + 3.0
    end[:20] = -0.1
    prompts = [f"q{i // 10}" for i in range(N)]
    examples = run([(0, RIGHT), (10, RIGHT + 3)], [(0, RIGHT), (10, end)], prompts=prompts)
    found = diagnose(examples, *DPO)
    assert found.reversal["eval_clean"].event and found.reversal["eval_clean"].p_accuracy == 0.25 and found.types == ()
    assert found.premature["eval_clean"].last.items == N // 10
    unnamed = {name: values for name, values in examples.items() if name != "prompt_id"}
    assert diagnose(unnamed, *DPO).types == ("D2",)


def test_a_diverged_run_has_no_type_and_says_so():
    rows = run([(0, RIGHT), (10, RIGHT)], [(0, RIGHT), (10, RIGHT)])
    rows["policy_chosen"] = np.where(rows["step"] == 10, np.nan, rows["policy_chosen"])
    found = diagnose(rows, *DPO)
    assert not found.finite and found.types == () and not found.premature and not found.reversal


def test_ids_must_be_the_same_at_both_ends():
    rows = run([(0, RIGHT), (10, RIGHT)], [(0, RIGHT), (10, RIGHT)])
    rows["id"] = np.where(rows["step"] == 10, np.char.add(rows["id"], "x"), rows["id"])
    with pytest.raises(InputError, match="different ids"):
        diagnose(rows, *DPO)


def test_exchangeable_checkpoints_fire_in_at_most_five_percent():
    """Which end came first is a coin flip for every pair; losses are unrelated to ranks; a quarter is mislabelled."""
    rng = np.random.default_rng(8)
    labels = np.where(np.arange(N) % 4 == 0, -1, 1).astype(np.int8)
    fired = {"D1": 0, "D2": 0, "D3": 0}
    for _ in range(300):
        parts = []
        for split, own in (("train_observed", labels), ("eval_clean", np.ones(N, np.int8))):
            for step in (0, 10):
                rows = at(split, step, rng.normal(0.5, 1, N), np.zeros(N), own)
                parts.append(rows | {"base_loss": rng.normal(0, 1, N)})
        for name in diagnose(stack(*parts), *DPO).types:
            fired[name] += 1
    assert fired["D1"] == 0 and fired["D2"] <= 15 and fired["D3"] <= 15
