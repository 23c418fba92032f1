"""A study on pairs of one's own that aims at the reward that a reward model gives to free answers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from harness.config.study import load_study
from harness.config.study_targets import CLEAN, TEST
from harness.metrics.selection import validation_half
from harness.study.scores import Scorer, samples_of
from harness.types import InputError
from tests.commands import harness
from tests.evaluation import reward_models
from tests.evaluation.test_answers import PROMPTS, spec, write_prompts


def study(folder: Path, target: str = "gold_reward", **evaluation: Any) -> Path:
    value = yaml.safe_load(spec(folder, None).read_text("utf-8"))
    value |= {
        "name": "goal", "objectives": [{"name": "dpo", "beta": {"low": 0.05, "high": 1, "log": True}}], "seeds": 1,
        "fresh_seeds": 1, "trials": 2, "round": 2, "targets": [{"measure": target}], "sampler": {"startup_trials": 2},
    }  # fmt: skip
    value["evaluation"] |= {"samples": 8, **evaluation}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return path


def test_what_is_aimed_at_must_be_measured(tmp_path: Path) -> None:
    model = reward_models.save(tmp_path / "reward")
    with pytest.raises(InputError, match="'gold_reward' of data needs a reward model"):
        load_study(study(tmp_path))
    with pytest.raises(InputError, match=r"evaluation.gold.reward_model: .*does not exist"):
        load_study(study(tmp_path, gold={"reward_model": "./nowhere"}))
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    with pytest.raises(InputError, match=r"measured on evaluation.prompts, of which no half is held back"):
        load_study(study(tmp_path, "over_refusal_rate", prompts="prompts.jsonl"))
    first = load_study(study(tmp_path, gold={"reward_model": str(model)}))
    (tmp_path / "other").mkdir()
    again = load_study(study(tmp_path, gold={"reward_model": str(reward_models.save(tmp_path / "other" / "one"))}))
    assert first.key == again.key, "the same reward model elsewhere"
    reward_models.save(tmp_path / "reward", seed=9)
    assert load_study(study(tmp_path, gold={"reward_model": str(model)})).key != first.key


def test_a_study_aims_at_gold_reward(tmp_path: Path) -> None:
    model = reward_models.save(tmp_path / "reward", seed=1, max_position_embeddings=512)
    path = study(tmp_path, gold={"reward_model": str(model)}, answers={"per_prompt": 2})
    done = harness("study", path, "--out", tmp_path / "runs", "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "goal"
    scorer = Scorer(folder, ["gold_reward"], [CLEAN, TEST])
    rows = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    assert len(rows) == 3
    for row in rows:
        place = next(folder.glob(f"{row['run_key'][:8]}*"))
        samples, examples = pd.read_parquet(place / "samples.parquet"), pd.read_parquet(place / "examples.parquet")
        scores = pd.read_parquet(place / "gold_scores.parquet")
        answers = scores[scores.kind == "answer"].sort_values("place").score.to_numpy()
        assert len(answers) == len(samples) == 16
        held = examples[(examples.split == "eval_clean") & (examples.step == 0)]
        half = np.repeat(validation_half(held.prompt_id.to_numpy()[:8]), 2)
        for split, mask in ((CLEAN, half), (TEST, ~half)):
            assert scorer.last(row["run_key"], 0.1, "gold_reward", split) == pytest.approx(answers[mask].mean())
        of = samples_of(CLEAN, samples.to_dict("list") | {"split": samples.split.to_numpy()}, {
            name: held[name].to_numpy() for name in ("step", "split", "prompt_id")
        })  # fmt: skip
        assert len(of["row"]) == half.sum()
    assert "gold_reward" in (folder / "report" / "report.md").read_text("utf-8")
