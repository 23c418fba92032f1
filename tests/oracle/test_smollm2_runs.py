"""Runs on SmolLM2-135M itself: a lane has the bits of the run alone, a resumed run those of an undisturbed one, and the
exports give the recorded log-probs in transformers and peft.

Needs the model's wheel, as `harness init --model smollm2` does; skipped where it is not there.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from harness.identity import file_sha256, run_key
from harness.models.export import export_run
from harness.signals import Interrupted
from harness.storage.runs import find_run, read_table
from harness.sweep.run import SweepOptions, run_sweep
from tests.oracle.test_smollm2_against_trl import base
from tests.sweep.test_path_models import data, pair_texts, plain_logp, reloaded, sweep, trained
from tests.sweep.test_stop_and_resume import Stopper

__all__ = ["base", "data"]
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
SMALL = {
    "training": {"steps": 2, "batch_size": 2, "learning_rate": 1e-3},
    "evaluation": {"checkpoints": 2, "heldout": 4, "probe": 4, "samples": 2},
}


def same_run(ours: Path, theirs: Path) -> bool:
    tables = [read_table(path / "examples.parquet") for path in (ours, theirs)]
    equal = all(np.array_equal(tables[0][n], tables[1][n], equal_nan=tables[0][n].dtype.kind == "f") for n in tables[0])
    weights = [file_sha256(path / "weights.safetensors") for path in (ours, theirs)]
    return equal and weights[0] == weights[1]


@pytest.fixture(scope="module")
def undisturbed(base, data, tmp_path_factory) -> tuple[Path, dict[str, Path]]:
    """Two adapters in one pack, trained at once: their sweep's folder above, and run key -> folder."""
    root = tmp_path_factory.mktemp("smollm2")
    loaded = sweep(root, base, data, model={"lora": {"rank": 4, "alpha": 8}}, **SMALL)
    return root, trained(loaded, root / "runs")


def test_a_lane_has_the_bits_of_the_run_alone(base, data, undisturbed, tmp_path):
    loaded = sweep(tmp_path, base, data, model={"lora": {"rank": 4, "alpha": 8}}, **SMALL)
    together = undisturbed[1]
    assert len(together) == 2 and not same_run(*together.values())
    run = loaded.runs[0]
    assert same_run(together[run_key(run)], trained(replace(loaded, runs=(run,)), tmp_path / "alone")[run_key(run)])


def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(base, data, undisturbed, tmp_path, monkeypatch):
    loaded = sweep(tmp_path, base, data, model={"lora": {"rank": 4, "alpha": 8}}, **SMALL)
    quiet, inline = Console(quiet=True), SweepOptions("inline", 0.0, track=False)
    stopper = Stopper(monkeypatch)
    stopper.at = 1
    with pytest.raises(Interrupted):
        run_sweep(loaded, tmp_path / "runs", 1, quiet, inline)
    stopper.at = -1
    assert run_sweep(loaded, tmp_path / "runs", 1, quiet, inline) == 0
    assert 1 in stopper.began  # the second call went on at step 1
    for key, folder in undisturbed[1].items():
        assert same_run(find_run(tmp_path / "runs" / "path", key), folder)


def test_exports_give_the_recorded_log_probs_in_transformers_and_peft(base, data, undisturbed, tmp_path):
    whole = sweep(tmp_path, base, data, model={"lora": None}, objectives=[{"name": "dpo", "beta": 1}], **SMALL)
    adapters = sweep(tmp_path, base, data, model={"lora": {"rank": 4, "alpha": 8}}, **SMALL)
    folders = undisturbed[1] | trained(whole, tmp_path / "runs")
    rows = {(r["prompt"], r["chosen"]): r for r in map(json.loads, (data / "plain.jsonl").read_text().splitlines())}
    for run in (whole.runs[0], adapters.runs[0]):
        folder = folders[run_key(run)]
        export_run(folder, to := tmp_path / f"out-{run_key(run)[:8]}")
        own, tokenizer = reloaded(to, base)
        table = read_table(folder / "examples.parquet")
        last, first = ((table["step"] == step) & (table["split"] == "eval_clean") for step in (2, 0))
        assert not np.allclose(table["policy_chosen"][last], table["policy_chosen"][first], rtol=1e-4)
        by_id = pair_texts(adapters, run, rows)
        for name, expected in zip(table["id"][last], table["policy_chosen"][last], strict=True):
            row = by_id[name]
            assert plain_logp(own, tokenizer, row["prompt"], row["chosen"]) == pytest.approx(expected, rel=1e-5)
