"""What a run stores: metric points of a checkpoint, the row of results.csv, and the summary of its samples."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from planted import full, pairs, records, stack

from harness.metrics import METRICS, checkpoint_metrics, results_row
from harness.metrics import records as r
from harness.metrics import samples as drawn
from harness.types import InputError

TRL = {"loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen",
       "logps/rejected"}  # fmt: skip
REFERENCE = [2.0, 2.0, -3.0, 1.0]
END = [4.0, 1.0, -1.0, -2.0]
BETA = 0.5


def table():
    """A run of two checkpoints: held-out and training pairs, two pairs of another distribution at the end."""
    parts = []
    for step, delta in ((0, REFERENCE), (8, END)):
        for split, labels in (("eval_clean", [1, 1, 1, 1]), ("train_observed", [1, -1, 1, -1])):
            parts.append(full(split, step, records(delta, REFERENCE, clean_label=labels, gold_margin=[2.0] * 4), BETA))
    parts.append(full("ood", 0, records([-1.0, -1.0], [0.0, 0.0]), BETA))
    parts.append(full("ood", 8, records([1.0, -1.0], [0.0, 0.0]), BETA))
    return stack(*parts)


def samples(**extra):
    return {
        "split": np.array(["eval_clean", "eval_clean", "ood"], dtype=object),
        "group": np.array(["what", "trick", "what"], dtype=object),
        "response": np.array(["the cat is red .", "", "red red red red"], dtype=object),
        "gold_reward": np.array([1.0, math.nan, -5.0], dtype=np.float32),
        "k1": np.array([0.5, -0.5, 9.0], dtype=np.float32),
        "k3": np.array([0.1, 0.3, 9.0], dtype=np.float32),
        "length": np.array([5, 0, 4], dtype=np.int32),
        "correct": np.array([True, False, False]),
        **extra,
    }


def test_results_row_by_hand():
    row = results_row(table(), samples(), BETA)
    assert list(row) == [
        "train_loss_first", "train_loss_last", "reward_accuracy", "ranking_accuracy", "undesirable_zone",
        "chosen_displacement", "rejected_displacement", "gold_reward", "kl", "ood_ranking_accuracy", "ref_accuracy",
        "train_ranking_accuracy", "train_clean_ranking_accuracy", "correct", "mean_length", "ood_gold_reward",
    ]  # fmt: skip
    assert row["train_ranking_accuracy"] == 0.5 and row["train_clean_ranking_accuracy"] == 0.5  # + - - - on + - + -
    assert row["ref_accuracy"] == 0.75 and row["correct"] == 0.5 and row["ood_gold_reward"] == -5.0
    assert row["train_loss_first"] == pytest.approx(math.log(2))
    gains = np.array(END) - np.array(REFERENCE)
    assert row["train_loss_last"] == pytest.approx(np.log1p(np.exp(-BETA * gains)).mean())
    assert (row["reward_accuracy"], row["ranking_accuracy"], row["undesirable_zone"]) == (0.5, 0.5, 0.25)
    assert (row["chosen_displacement"], row["rejected_displacement"]) == (pytest.approx(0), pytest.approx(0))
    assert row["ood_ranking_accuracy"] == 0.5
    assert row["gold_reward"] == 1.0 and row["kl"] == pytest.approx(0.2)  # evaluation prompts only
    json.dumps(row, allow_nan=False)


def test_results_row_does_not_depend_on_row_order():
    examples = table()
    order = np.random.default_rng(0).permutation(r.size(examples))
    shuffled = results_row(r.select(examples, order), samples(), BETA)
    assert shuffled == pytest.approx(results_row(examples, samples(), BETA))


def test_what_was_not_measured_is_none_and_not_an_older_number():
    examples = table()
    row = results_row(r.select(examples, examples["split"] != "ood"), None, None)
    assert row["ood_ranking_accuracy"] is None and row["gold_reward"] is None and row["kl"] is None
    early = r.select(examples, (examples["split"] != "eval_clean") | (examples["step"] == 0))
    assert results_row(early, None, BETA)["ranking_accuracy"] is None
    unknown = samples(gold_reward=np.full(3, np.nan))
    assert results_row(examples, unknown, BETA)["gold_reward"] is None


def test_a_diverged_run_has_no_numbers_at_its_end():
    examples = table()
    late = examples["step"] == 8
    for name in ("policy_chosen", "policy_rejected", "loss"):
        examples[name] = np.where(late, np.nan, examples[name])
    row = results_row(examples, None, BETA)
    assert row.pop("train_loss_first") == pytest.approx(math.log(2))
    assert set(row.values()) == {None}


def test_results_row_refuses_what_it_cannot_read():
    with pytest.raises(InputError, match="no rows"):
        results_row({name: values[:0] for name, values in table().items()}, None, BETA)
    with pytest.raises(InputError, match="found: train"):
        results_row(table(), samples(split=np.array(["train"] * 3)), BETA)
    with pytest.raises(InputError, match="'policy_chosen' is missing"):
        results_row({name: values for name, values in table().items() if name != "policy_chosen"}, None, BETA)


def test_a_policy_learnt_by_reinforcement_has_no_loss_of_given_pairs():
    whole = results_row(table(), None, BETA)
    row = results_row({name: values for name, values in table().items() if name != "loss"}, None, BETA)
    assert row == whole | {"train_loss_first": None, "train_loss_last": None}


def test_checkpoint_points_by_hand():
    points = checkpoint_metrics(r.where(table(), 8, "eval_clean"), "eval_", BETA)
    assert {f"eval_{name}" for name in TRL} <= set(points)
    assert points["eval_rewards/accuracies"] == points["geometry/reward_accuracy"] == 0.5
    assert points["eval_rewards/margins"] == pytest.approx(
        points["eval_rewards/chosen"] - points["eval_rewards/rejected"]
    )
    assert points["eval_logps/chosen"] - points["eval_logps/rejected"] == pytest.approx(points["geometry/delta"])
    assert points["geometry/undesirable_zone"] == 0.25 and points["geometry/gain"] == 0.0
    assert points["geometry/violation_rate"] == 0.0 and "geometry/nonfinite" not in points
    zones = [
        points[f"geometry/{name}"] for name in ("zone_z1", "zone_z2", "undesirable_zone", "zone_z4", "tie_rate_delta")
    ]
    assert sum(zones) == 1


def test_training_and_other_splits_have_their_own_names():
    examples = table()
    training = checkpoint_metrics(r.where(examples, 8, "train_observed"), "", BETA)
    assert set(training) >= TRL and training["geometry/train_memorised_flip_rate"] == 0.5
    other = checkpoint_metrics(r.where(examples, 8, "ood"), "ood_", BETA)
    assert other["geometry/ood_ranking_accuracy"] == 0.5
    held_out = checkpoint_metrics(r.where(examples, 8, "eval_clean"), "eval_", BETA)
    assert not (set(training) & set(other) | set(training) & set(held_out) | set(other) & set(held_out))
    clean = r.where(examples, 8, "train_observed") | {"clean_label": np.ones(4)}
    assert "geometry/train_memorised_flip_rate" not in checkpoint_metrics(clean, "", BETA)
    with pytest.raises(ValueError, match="split_prefix"):
        checkpoint_metrics(clean, "test_", BETA)


def test_rounding_is_no_accuracy_at_step_zero():
    columns = full("eval_clean", 0, records(np.array(REFERENCE) + 4e-5, REFERENCE), BETA)
    points = checkpoint_metrics(columns, "eval_", BETA)
    assert points["eval_rewards/accuracies"] == points["geometry/reward_accuracy"] == 0.0
    assert points["geometry/tie_rate_gain"] == 1.0 and points["eval_loss"] == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize("prefix", ["", "eval_", "ood_"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_only_finite_points_leave_and_the_rest_is_counted(prefix, bad):
    sound = full("eval_clean", 8, records(END, REFERENCE), BETA)
    logps = np.array([bad, *sound["policy_chosen"][1:]])
    broken = sound | {"policy_chosen": logps, "chosen_reward": logps, "loss": logps}
    points = checkpoint_metrics(broken, prefix, BETA)
    assert all(math.isfinite(value) for value in points.values())
    owner = {"": "train_", "eval_": "", "ood_": "ood_"}[prefix]
    lost = set(checkpoint_metrics(sound, prefix, BETA)) - set(points)
    assert lost and points[f"geometry/{owner}nonfinite"] == len(lost)


@given(pairs())
def test_points_are_finite_and_shares_lie_in_range(columns):
    beta = 0.4
    points = checkpoint_metrics(full("eval_clean", 3, columns, beta), "eval_", beta)
    assert all(math.isfinite(value) for value in points.values())
    for name, value in points.items():
        row = METRICS.get(name.removeprefix("geometry/"))
        assert row is None or row.low - 1e-9 <= value <= row.high + 1e-9


def test_sample_summary_by_hand():
    found = {row.name: row.compute(samples()) for row in drawn.ROWS if row.known(samples())}
    assert found["correct"] == pytest.approx(1 / 3) and found["kl"] == pytest.approx(9.4 / 3)
    assert found["gold_reward"] == -2.0  # over the two known ones
    assert found["empty_rate"] == pytest.approx(1 / 3) and found["mean_length"] == 3.0
    assert found["repetitive_rate"] == pytest.approx(1 / 3) and found["repetition"] == pytest.approx(2 / 3 / 3)
    assert "malformed" not in found  # no such column
    assert found["kl_k2"] == pytest.approx((0.125 + 0.125 + 40.5) / 3)


@pytest.mark.parametrize(("text", "share"), [("", 0.0), ("red", 0.0), ("a b c d", 0.0), ("a b a b a b", 0.6)])
def test_repetition(text, share):
    assert drawn.repetition({"response": np.array([text], dtype=object)}) == pytest.approx([share])


def test_records_cut_and_match():
    examples = table()
    assert r.steps(examples) == [0, 8] and r.steps(examples, "ood") == [0, 8] and r.steps(examples, "none") == []
    assert r.size(r.where(examples, 8, "eval_clean")) == 4 and r.size(r.where(examples, split="ood")) == 4
    assert r.size({}) == 0
    first, last = r.where(examples, 0, "eval_clean"), r.where(examples, 8, "eval_clean")
    left, right = r.by_id(r.select(first, np.array([3, 1])), last)
    assert list(left["id"]) == list(right["id"]) == ["p0001", "p0003"]
    with pytest.raises(InputError, match="column 'k9' is missing"):
        r.numbers(examples, "k9")


def test_measures_import_no_torch_pandas_or_scipy():
    code = (
        "import sys, harness.metrics, harness.metrics.divergence, harness.metrics.statistics, harness.metrics.targets\n"
    )
    code += "print(sorted({'torch', 'pandas', 'scipy', 'mlflow', 'pydantic'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_every_split_has_its_rows_and_the_clean_training_pairs_follow_from_the_observed():
    examples = table()
    observed, clean = (r.rows(examples, split, 8) for split in ("train_observed", "train_clean"))
    assert (r.numbers(clean, "clean_label") == 1).all() and "base_loss" not in clean
    wrong = r.numbers(observed, "clean_label") < 0
    assert wrong.sum() == 2 and np.array_equal(clean["policy_chosen"][wrong], observed["policy_rejected"][wrong])
    assert METRICS["ranking_accuracy"].compute(clean) == METRICS["clean_ranking_accuracy"].compute(observed)
    for split in ("eval_clean", "ood"):
        assert r.size(r.rows(examples, split, 8)) == r.size(r.where(examples, 8, split)) > 0
    with pytest.raises(InputError, match="unknown split 'eval'"):
        r.rows(examples, "eval")


def test_stored_clean_responses_stand_for_themselves():
    """Where text was changed the clean responses have rows of their own, and turning observed ones would be wrong."""
    stored = full("train_clean", 8, records([7.0], [0.0]), BETA)
    examples = stack(table(), stored)
    assert r.rows(examples, "train_clean", 8)["policy_chosen"] == stored["policy_chosen"]
    assert r.size(r.rows(examples, "train_clean", 0)) == 0


def test_rows_are_cut_by_what_the_ledger_touched():
    examples = table() | {"corrupted": np.arange(r.size(table())) % 2 == 0}
    touched, rest = (r.rows(examples, "eval_clean", 8, corrupted=flag) for flag in (True, False))
    assert r.size(touched) == r.size(rest) == 2 and touched["corrupted"].all() and not rest["corrupted"].any()
