"""Scores: halves that share no prompt, noisy labels like the training labels, values by hand from planted records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.data.corrupt.table import resolve as corruption
from harness.names import plain, run_key
from harness.objectives.table import resolve
from harness.spec_targets import CLEAN, OBSERVED, OOD, TEST
from harness.sweep.study_scores import HeldOut, Scorer, held_out_pairs, in_validation, observable
from harness.tracking import store
from harness.types import CorruptionSpec, EvaluationSpec, RunSpec, TrainingSpec, WorldSpec

FLIPS = corruption({"kind": "uniform_flip", "rate": 0.3})
RUN = RunSpec(
    resolve("dpo", {"beta": 2.0}), FLIPS, TrainingSpec(steps=8), EvaluationSpec(heldout=400, samples=400), seed=3,
    world=WorldSpec(),
)  # fmt: skip


def rows(run: RunSpec) -> dict[str, np.ndarray]:
    """Held-out records whose delta is +1 for the first half of the validation pairs and -1 for every other pair."""
    pairs = held_out_pairs(run)
    validation = [pair.id for pair in pairs if in_validation(pair.prompt)]
    right = set(validation[: len(validation) // 2])
    delta = np.array([1.0 if pair.id in right else -1.0 for pair in pairs])
    zero = np.zeros(len(pairs))
    return {
        "step": np.full(len(pairs), 8, np.int32),
        "split": np.array(["eval_clean"] * len(pairs), dtype=object),
        "id": np.array([pair.id for pair in pairs], dtype=object),
        "policy_chosen": delta, "policy_rejected": zero, "reference_chosen": zero, "reference_rejected": zero,
        "chosen_len": zero + 3, "rejected_len": zero + 2,
        "gold_margin": np.array([pair.gold_margin for pair in pairs]),
        "loss": zero,
    }  # fmt: skip


def committed(folder: Path, run: RunSpec, status: str = "done", **changes: np.ndarray) -> str:
    key = run_key(run)
    place, _ = store.open_run(folder, key, "a run")
    store.write_table(place / "examples.parquet", {**rows(run), **changes})
    pairs = held_out_pairs(run)
    rewards = np.array([1.0 if in_validation(pair.prompt) else 3.0 for pair in pairs])
    where = np.array(["eval_clean"] * len(pairs), dtype=object)
    samples = {
        "split": where,
        "prompt": np.array([pair.prompt for pair in pairs], dtype=object),
        "gold_reward": rewards,
    }
    store.write_table(place / "samples.parquet", samples)
    result = {"run_key": key, "status": status, "steps": 8, "results": {}, "costs": {}, "name": "a run", "t0_ms": 0}
    store.commit(place, {**result, "config": plain(run)})
    return key


def test_halves_share_no_prompt_and_are_the_same_in_every_world():
    for seed in (0, 1):
        pairs = held_out_pairs(replace(RUN, seed=seed))
        halves = [{pair.prompt for pair in pairs if in_validation(pair.prompt) == side} for side in (True, False)]
        assert not halves[0] & halves[1] and all(0.35 < len(half) / sum(map(len, halves)) < 0.65 for half in halves)


def test_values_by_hand(tmp_path):
    key = committed(tmp_path, RUN)
    scorer = Scorer(tmp_path, ["ranking_accuracy", "gold_reward"], [CLEAN, TEST, OBSERVED])
    assert scorer.last(key, RUN, "ranking_accuracy", CLEAN) == pytest.approx(0.5, abs=0.01)
    assert scorer.last(key, RUN, "ranking_accuracy", TEST) == 0
    assert scorer.last(key, RUN, "gold_reward", CLEAN) == 1 and scorer.last(key, RUN, "gold_reward", TEST) == 3
    held = HeldOut(RUN, held_out_pairs(RUN))
    validation = held.half(rows(RUN), True)
    flips = held.flipped(validation)
    assert flips <= held.validation and len(flips) == round(0.3 * len(held.validation))
    wrong = np.array([name in flips for name in validation["id"]])
    right = np.where(wrong, -1, 1) * validation["policy_chosen"] > 0
    assert scorer.last(key, RUN, "ranking_accuracy", OBSERVED) == pytest.approx(right.mean())
    items = {(s.split, s.measure): s.items for s in scorer.scores(key, RUN)}
    assert items[CLEAN, "ranking_accuracy"] + items[TEST, "ranking_accuracy"] == 400


def test_noisy_labels_are_fixed_by_the_seed_and_not_those_of_training():
    held = HeldOut(RUN, held_out_pairs(RUN))
    validation = held.half(rows(RUN), True)
    assert held.flipped(validation) == HeldOut(RUN, held_out_pairs(RUN)).flipped(validation)
    clean = HeldOut(replace(RUN, corruption=CorruptionSpec()), held.pairs)
    assert clean.flipped(validation) == frozenset()
    coin = replace(RUN, corruption=CorruptionSpec(), world=WorldSpec(labels="bradley_terry"))
    share = len(HeldOut(coin, held.pairs).flipped(validation)) / len(held.validation)
    expected = np.mean(1 / (1 + np.exp(validation["gold_margin"])))
    assert share == pytest.approx(expected, abs=0.08) and share > 0


@pytest.mark.parametrize("kind", ["uniform_flip", "bt_flip", "length_biased", "adversarial_hard", "rm_noise"])
def test_kinds_that_relabel_can_be_observed(kind):
    given = {"kind": kind, "rate": 0.3} if kind in ("uniform_flip", "adversarial_hard") else {"kind": kind}
    run = replace(RUN, corruption=corruption(given))
    assert observable(run) == ""


@pytest.mark.parametrize("given", [{"kind": "truncate", "rate": 0.2}, {"kind": "contradictory_dup", "rate": 0.2}])
def test_kinds_that_change_more_cannot(given):
    assert "not labels" in observable(replace(RUN, corruption=corruption(given)))


def test_what_is_missing_or_not_finite_has_no_value(tmp_path):
    scorer = Scorer(tmp_path, ["ranking_accuracy"], [CLEAN, TEST, OOD])
    assert scorer.last("0" * 64, RUN, "ranking_accuracy", CLEAN) is None
    broken = np.array(rows(RUN)["policy_chosen"])
    broken[0] = np.nan
    [first, second] = [
        replace(RUN, seed=RUN.seed, training=TrainingSpec(steps=8, learning_rate=r)) for r in (1e-3, 1e-4)
    ]
    key = committed(tmp_path, first, policy_chosen=broken)
    halves = [scorer.last(key, first, "ranking_accuracy", split) for split in (CLEAN, TEST)]
    assert halves.count(None) == 1, "the half that holds the broken pair has no accuracy, the other has"
    assert scorer.last(key, first, "ranking_accuracy", OOD) is None
    key = committed(tmp_path, second, status="diverged")
    assert scorer.last(key, second, "ranking_accuracy", CLEAN) is None
