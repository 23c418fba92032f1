"""Scores: halves that share no prompt, noisy labels of the run's own noise, values by hand from planted records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.config.study_targets import CLEAN, DOWNSTREAM, OBSERVED, OOD, TEST
from harness.metrics.selection import validation_half
from harness.storage.evaluations import Evaluated, write_evaluations
from harness.storage.runs import commit, find_run, open_run, write_table
from harness.study.scores import Scorer, rows_of

KEY = "ab" * 32
PROMPTS = np.array([f"prompt {i % 60}" for i in range(200)], dtype=object)
VALIDATION = validation_half(PROMPTS)


def rows() -> dict[str, np.ndarray]:
    """200 held-out pairs of 60 prompts, right (delta +1) where the index is a multiple of 4; every 5th noisy label is
    wrong and every 7th pair would not be in a noisy set; then 10 pairs of another distribution, all right."""
    index = np.arange(200)
    delta = np.concatenate([np.where(index % 4 == 0, 1.0, -1.0), np.ones(10)])
    label = np.where(index % 7 == 0, 0, np.where(index % 5 == 0, -1, 1))
    zero = np.zeros(210)
    return {
        "step": np.full(210, 8, np.int32),
        "split": np.array(["eval_clean"] * 200 + ["ood"] * 10, dtype=object),
        "id": np.array([f"pair {i}" for i in range(210)], dtype=object),
        "prompt_id": np.concatenate([PROMPTS, PROMPTS[:10]]),
        "policy_chosen": delta, "policy_rejected": zero, "reference_chosen": zero, "reference_rejected": zero,
        "chosen_len": zero + 3, "rejected_len": zero + 2, "gold_margin": zero + 1,
        "validation_label": np.concatenate([label, np.zeros(10, int)]),
    }  # fmt: skip


def committed(folder: Path, status: str = "done", **changes: np.ndarray) -> Scorer:
    place, _ = open_run(folder, KEY, "a run")
    write_table(place / "examples.parquet", {**rows(), **changes})
    split = np.array(["eval_clean"] * 100 + ["ood"] * 5, dtype=object)
    reward = np.concatenate([np.where(VALIDATION[:100], 1.0, 3.0), np.full(5, 9.0)])
    write_table(place / "samples.parquet", {"split": split, "gold_reward": reward})
    result = {"run_key": KEY, "status": status, "steps": 8, "results": {}, "costs": {}, "name": "a run", "t0_ms": 0}
    commit(place, {**result, "config": {}})
    return Scorer(folder, ["ranking_accuracy", "gold_reward"], [CLEAN, TEST, OBSERVED, OOD])


def test_halves_share_no_prompt_and_depend_on_nothing_else():
    halves = [set(PROMPTS[side == VALIDATION]) for side in (True, False)]
    assert not halves[0] & halves[1] and all(15 < len(half) < 45 for half in halves)
    order = np.random.default_rng(0).permutation(200)
    assert (validation_half(PROMPTS[order]) == VALIDATION[order]).all()
    many = validation_half([f"{i}" for i in range(4000)])
    assert many.mean() == pytest.approx(0.5, abs=0.03)


def test_values_by_hand(tmp_path):
    scorer = committed(tmp_path)
    right = np.arange(200) % 4 == 0
    assert scorer.last(KEY, 2.0, "ranking_accuracy", CLEAN) == pytest.approx(right[VALIDATION].mean())
    assert scorer.last(KEY, 2.0, "ranking_accuracy", TEST) == pytest.approx(right[~VALIDATION].mean())
    assert scorer.last(KEY, 2.0, "ranking_accuracy", OOD) == 1
    index = np.arange(200)
    there = VALIDATION & (index % 7 != 0)
    agrees = np.where(index % 5 == 0, ~right, right)
    assert scorer.last(KEY, 2.0, "ranking_accuracy", OBSERVED) == pytest.approx(agrees[there].mean())
    rewards = [scorer.last(KEY, 2.0, "gold_reward", split) for split in (CLEAN, TEST, OOD, OBSERVED)]
    assert rewards == [1, 3, 9, None]
    items = {(s.split, s.measure): s.items for s in scorer.scores(KEY, 2.0)}
    assert items[CLEAN, "ranking_accuracy"] + items[TEST, "ranking_accuracy"] == 200
    assert items[OBSERVED, "ranking_accuracy"] == there.sum() and items[CLEAN, "gold_reward"] == VALIDATION[:100].sum()


def test_observed_rows_stand_in_their_observed_orientation():
    turned = rows_of(OBSERVED, rows(), 8)
    assert set(turned["validation_label"]) == {1} and set(turned["gold_margin"]) == {1, -1}
    assert (turned["gold_margin"] < 0).mean() == pytest.approx(0.2, abs=0.08)


def test_what_is_missing_or_not_finite_has_no_value(tmp_path):
    empty = Scorer(tmp_path, ["ranking_accuracy"], [CLEAN])
    assert empty.last(KEY, 2.0, "ranking_accuracy", CLEAN) is None and empty.scores(KEY, 2.0) == ()
    broken = rows()["policy_chosen"].copy()
    broken[np.flatnonzero(~VALIDATION)[0]] = np.nan
    scorer = committed(tmp_path, policy_chosen=broken)
    assert scorer.last(KEY, 2.0, "ranking_accuracy", CLEAN) is not None
    assert scorer.last(KEY, 2.0, "ranking_accuracy", TEST) is None


def test_a_diverged_run_has_no_scores(tmp_path):
    assert committed(tmp_path, status="diverged").scores(KEY, 2.0) == ()


def test_a_benchmark_is_read_from_what_was_evaluated(tmp_path):
    committed(tmp_path)
    place = find_run(tmp_path, KEY)
    measure = "lm_eval/arc_easy/acc"
    before = Scorer(tmp_path, [measure], [CLEAN])
    assert before.last(KEY, None, measure, DOWNSTREAM) is None, "nothing stands in for a benchmark that was not run"
    found = Evaluated(
        task="arc_easy", version="1", library="0.4", n=50, limit=50, num_fewshot=0, metrics={"acc": 0.5},
        higher_is_better={"acc": True}, config_hash="c", data_hash="d", weights="w",
    )  # fmt: skip
    write_evaluations(place, 8, [(found, [])])
    [score] = Scorer(tmp_path, [measure], [CLEAN]).scores(KEY, None)
    assert (score.value, score.items, score.step, score.split) == (0.5, 50, 8, DOWNSTREAM)
