"""RLHF beside preference objectives in one sweep: reward models as runs of their own, every RL row, damage."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest

from harness.objectives import OBJECTIVES
from harness.storage.journal import read_journal
from harness.storage.runs import read_table
from harness.storage.verify import verify
from tests.commands import harness
from tests.sweep.test_end_to_end import TINY, write

RL = [name for name, row in OBJECTIVES.items() if row.family == "rl"]
SMALL = {"iterations": 3, "prompts": 8}
SPEC = {
    **TINY,
    "name": "rlhf",
    "world": {**TINY["world"], "misaligned": 0.75},
    "objectives": [
        {"name": "dpo", "beta": 2},
        {"name": "reward_model", "steps": 6, "batch_size": 8},
        *({"name": name, "beta": 0.5, "samples": 4, **SMALL} for name in RL if name != "best_of_n"),
        {"name": "best_of_n", "n": 4, "estimate": 8},
        {"name": "rloo", "beta": 0.5, "reward": "gold", **SMALL},
    ],
    "corruptions": [{"kind": "uniform_flip", "rate": 0.4}],
    "seeds": 1,
    "evaluation": {"checkpoints": 3, "heldout": 24, "probe": 24, "ood": 8, "samples": 16},
    "also": [
        {
            "objectives": [
                {"name": "reward_model", "steps": 6, "batch_size": 8, "head": "scalar"},
                {"name": "rloo", "beta": 0.5, "samples": 4, **SMALL},
                {"name": "best_of_n", "n": 2, "estimate": 8},
            ],
            "corruptions": [{"kind": "none"}],
        }
    ],
}


def sweep(root: Path) -> CompletedProcess[str]:
    return harness("sweep", write(root, SPEC), "--out", root / "runs")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rlhf")
    done = sweep(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "runs" / "rlhf"


def folders(swept: Path, name: str) -> list[Path]:
    return [
        p.parent
        for p in swept.glob("*/result.json")
        if json.loads(p.read_text())["config"]["objective"]["name"] == name
    ]


def test_every_objective_is_measured_on_the_same_pairs(swept):
    results = pd.read_csv(swept / "results.csv")
    assert set(results.status) == {"done"} and set(results.objective) == {"dpo", "reward_model", *RL}
    policies = results[results.objective != "reward_model"]
    measured = ["ranking_accuracy", "reward_accuracy", "undesirable_zone", "gold_reward", "kl", "ood_ranking_accuracy"]
    assert policies[measured].notna().all().all()
    rl = results[results.objective.isin(RL)]
    assert rl.train_loss_first.isna().all() and rl.train_loss_last.isna().all()  # no loss of given pairs
    assert set(rl[rl.objective != "best_of_n"].steps) == {3} and set(rl[rl.objective == "best_of_n"].steps) == {0}
    assert verify(swept) == []
    starts = []
    for folder in (folders(swept, "dpo") + folders(swept, "rloo"))[:3]:
        table = pd.DataFrame(read_table(folder / "examples.parquet"))
        start = table[(table.step == 0)].sort_values(["split", "id"])
        starts.append(start[start.split == "eval_clean"][["id", "reference_chosen"]].reset_index(drop=True))
    assert all(start.equals(starts[0]) for start in starts)


def test_a_reward_model_is_a_run_of_its_own_and_made_once(swept):
    results = pd.read_csv(swept / "results.csv")
    models = results[results.objective == "reward_model"]
    assert len(models) == 2 and set(models.rate) == {0.0, 0.4} and set(models.steps) == {6}
    accuracies = ["reward_accuracy", "observed_reward_accuracy", "train_reward_accuracy", "ood_reward_accuracy"]
    assert models[accuracies].notna().all().all()
    assert (
        models[["ranking_accuracy", "undesirable_zone", "kl", "gold_reward", "chosen_displacement"]].isna().all().all()
    )
    stored = [
        p for p in (swept.parent / "cache" / "models").glob("*.safetensors") if b'"stage":"reward"' in p.read_bytes()
    ]
    assert len(stored) == 2
    for folder in folders(swept, "reward_model"):
        table = pd.DataFrame(read_table(folder / "examples.parquet"))
        assert "policy_chosen" not in table and (table[table.step == 0].chosen_reward.abs() < 1e-4).all()
        row = json.loads((folder / "result.json").read_text())["results"]
        last = table[(table.step == row["kept_step"]) & (table.split == "eval_clean")]
        assert row["reward_accuracy"] == pytest.approx((last.chosen_reward - last.rejected_reward > 1e-4).mean())


def test_the_journal_watches_the_policy_and_its_reward(swept):
    [folder] = folders(swept, "ppo")
    points = [record for record in read_journal(folder / "events.jsonl") if record["kind"] == "metrics"]
    names = set().union(*points)
    assert names >= {
        "objective/kl", "objective/scores", "objective/rlhf_reward", "objective/non_score_reward", "objective/entropy",
        "policy/clipfrac_avg", "policy/approxkl_avg", "loss/policy_avg", "loss/value_avg", "val/ratio",
        "val/num_eos_tokens", "rlhf/explained_variance", "rlhf/generated_tokens",
    }  # fmt: skip
    curve = [point for point in points if "rlhf/heldout_reward" in point]
    assert [point["step"] for point in curve] == [0, 2, 3]
    assert all(math.isfinite(point["rlhf/heldout_gold_reward"]) for point in curve)
    assert curve[0]["rlhf/heldout_kl"] < 1e-6 and "loss" not in names
    assert curve[-1]["rlhf/generated_tokens"] == 3 * 8 * 4 * 14


def test_costs_count_what_is_sampled_and_what_the_reward_model_took(swept):
    both = pd.read_csv(swept / "results.csv").merge(pd.read_csv(swept / "costs.csv"), on="run_key")
    cost = both[both.corruption == "uniform_flip"].set_index(["objective", "hp.reward"])
    rloo, ppo, gold = cost.loc[("rloo", "model")], cost.loc[("ppo", "model")], cost.loc[("rloo", "gold")]
    parameters = rloo.reward_flops / (6 * 6 * 8 * 32)  # 6 steps of 8 pairs, rows of 32 tokens
    assert parameters == pytest.approx(57_664)
    scored = 3 * 8 * (8 + 4 * 14)  # iterations x prompts x (prompt + responses)
    assert rloo.generated_tokens == 3 * 8 * 4 * 14 and rloo.tokens == scored + rloo.generated_tokens
    assert rloo.flops == parameters * scored * (2 + 2 * 2 + 6)  # sampling, reference and reward model, one pass
    assert gold.flops == parameters * scored * (2 + 2 + 6) and gold.reward_flops == 0
    assert ppo.flops == parameters * scored * (2 + 2 * 2 + 6 * 3)  # three epochs
    assert cost.loc["dpo"].generated_tokens.item() == 0


def test_best_of_n_says_what_bounds_it(swept):
    results = pd.read_csv(swept / "results.csv")
    best = results[results.objective == "best_of_n"]
    expected = [math.log(n) - (n - 1) / n for n in best["hp.n"]]
    assert best.kl_bound.tolist() == pytest.approx(expected)
    assert results[results.objective != "best_of_n"].kl_bound.isna().all()


def test_gold_reward_needs_no_reward_model(swept):
    plan = json.loads((swept / "plan.json").read_text())
    for run in plan["runs"]:
        own = dict(run["config"]["objective"]["hyperparameters"])
        assert (run["config"]["reward_model"] is not None) == (own.get("reward") == "model")


def test_a_lost_or_damaged_reward_model_is_made_again(swept, tmp_path):
    shutil.copytree(swept.parent, tmp_path / "runs")
    folder = tmp_path / "runs" / "rlhf"
    for path in (tmp_path / "runs" / "cache" / "models").glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        if b'"stage":"reward"' in data:
            data[-10] ^= 1
            path.write_bytes(data)
    for name in ("grpo",):
        for run in folders(folder, name):
            (run / "result.json").unlink()
    done = sweep(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "runs" / "cache" / "models").glob("*.corrupt-*"))
    assert (folder / "results.csv").read_bytes() == (swept / "results.csv").read_bytes()
