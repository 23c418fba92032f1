"""Every objective and every corruption through the whole path: packed, finite, and starting where theory says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.corruptions import CORRUPTIONS
from harness.objectives import OBJECTIVES
from harness.objectives.row import StepZero
from harness.preflight.step_zero import loss_rounding
from harness.storage.journal import read_journal
from harness.storage.runs import read_table
from harness.types import PairLogps
from tests.commands import harness
from tests.sweep.test_end_to_end import TINY, write

# Rows that learn from given pairs; those of family rl, and the reward model, have a sweep of their own in tests/rlhf.
SHOWN = [
    name
    for name, row in OBJECTIVES.items()
    if row.tier != "internal" and row.family != "rl" and name not in ("mixture", "reward_model")
]
RATED = {name: {"rate": 0.3} for name, row in CORRUPTIONS.items() if row.rate == "fixed"}
MIXED = {"mixture": [{"name": "dpo", "weight": 1.0}, {"name": "nll", "weight": 0.2}], "beta": 0.5}
# Two forwards of one model in float32 differ by some units in the last place for each layer and token.
ROUNDING = 64 * torch.finfo(torch.float32).eps
SEQUENCE = {"sequence": [{"kind": "uniform_flip", "rate": 0.2}, {"kind": "truncate", "rate": 0.3}]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("registries")
    spec = {
        **TINY,
        "name": "registries",
        "world": {**TINY["world"], "misaligned": 0.5},
        "objectives": [*({"name": name} for name in SHOWN), MIXED],
        "corruptions": [{"kind": "none"}],
        "seeds": 1,
        "training": {"steps": 4, "batch_size": 8},
        "evaluation": {"checkpoints": 2, "heldout": 32, "probe": 64, "ood": 0, "samples": 8},
        "also": [
            {
                "objectives": [{"name": "dpo", "beta": 2}],
                "corruptions": [*({"kind": name, **RATED.get(name, {})} for name in CORRUPTIONS), SEQUENCE],
            }
        ],
    }
    done = harness("sweep", write(root, spec), "--out", root / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "runs" / "registries"


def test_every_row_runs_and_measures(swept):
    results = pd.read_csv(swept / "results.csv")
    assert set(results.status) == {"done"}
    assert set(results.objective) >= set(SHOWN) and set(results.corruption) >= set(CORRUPTIONS)
    assert results[["train_loss_last", "ranking_accuracy", "undesirable_zone", "kl", "gold_reward"]].notna().all().all()


def test_step_zero_losses_are_the_closed_forms(swept):
    checked = 0
    for path in swept.glob("*/result.json"):
        result = json.loads(path.read_text())
        config = result["config"]
        row = OBJECTIVES[config["objective"]["name"]]
        if config["corruption"]["kind"] != "none" or row.step0 is None:
            continue
        table = pd.DataFrame(read_table(path.parent / "examples.parquet"))
        start = table[(table.step == 0) & (table.split == "train_observed")]
        columns = [
            start[name].to_numpy(dtype=float)
            for name in ("reference_chosen", "reference_rejected", "chosen_len", "rejected_len")
        ]
        given = dict(config["objective"]["hyperparameters"])
        values = [row.step0(given, StepZero(*one)) for one in zip(*columns, strict=True)]
        expected = sum(values) / len(values)
        chosen, rejected, *lengths = map(torch.from_numpy, columns)
        at = PairLogps(chosen, rejected, *lengths, extra=dict.fromkeys(row.needs, torch.zeros_like(chosen)))
        rounding = ROUNDING * torch.stack([chosen, rejected], -1).abs()
        allowed = float(loss_rounding(row, given.items(), at, rounding).mean()) + ROUNDING * max(1.0, expected)
        assert allowed < 0.02 * max(1.0, expected), row.name  # still tells a wrong closed form
        assert abs(result["results"]["train_loss_first"] - expected) <= allowed, row.name
        assert math.isfinite(expected)
        checked += 1
    assert checked >= 35


def test_the_dual_objective_shows_its_constraint(swept):
    [path] = swept.glob("*cpo_dual*/events.jsonl")
    points = [r for r in read_journal(path) if "geometry/train_multiplier" in r]
    assert points[0]["geometry/train_multiplier"] == 0 and points[-1]["geometry/train_multiplier"] > 0
    assert all(0 <= p["geometry/train_feasible"] <= 1 and p["geometry/train_violation"] >= 0 for p in points)


def test_every_row_appears_in_the_report(swept):
    report = (swept / "report" / "report.md").read_text(encoding="utf-8")
    cells = pd.read_csv(swept / "report" / "cells.csv")
    assert set(cells.objective) >= set(SHOWN) and set(cells.corruption) >= set(CORRUPTIONS)
    assert all(name in report for name in SHOWN)
    assert "What each kind of damage costs" in report and "kinds of damage" in report.partition("\n## ")[0]


def test_derived_kinds_show_the_rate_they_realised(swept):
    results = pd.read_csv(swept / "results.csv").set_index("corruption")
    derived = [name for name, row in CORRUPTIONS.items() if row.rate == "derived"]
    assert results.loc[derived].rate.between(0, 1).all() and (results.loc["bt_flip"].rate < 0.5).all()


def test_corrupted_sets_are_what_the_ledger_says(swept):
    results = pd.read_csv(swept / "results.csv").set_index("run_key")
    flips = 0
    for path in swept.glob("*/ledger.parquet"):
        ledger = pd.DataFrame(read_table(path))
        table = pd.DataFrame(read_table(path.parent / "examples.parquet"))
        probe = table[(table.step == 0) & (table.split == "train_observed")].set_index("id")
        row = results.loc[json.loads((path.parent / "result.json").read_text())["run_key"]]
        if row.corruption == "uniform_flip":
            assert set(probe.index[probe.clean_label == -1]) == set(ledger["id"]) & set(probe.index)
            flips += 1
    assert flips == 1
