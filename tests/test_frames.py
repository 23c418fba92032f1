"""The pandas door: typed tables that say what the files say, and errors that name the way out."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness import load
from harness.metrics import METRICS
from harness.metrics.records import where
from harness.report.page import write_report
from harness.storage.runs import find_run, read_table
from harness.types import InputError
from tests.report.fixture import STEPS, grid, write_sweep

# Columns read with Python's own float: pandas' default parser may be off in the last digit.
FULL = {name: lambda text: float(text or "nan") for name in ("ranking_accuracy", "beta", "hp.gamma", "rate")}
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 runs of three objectives, one pending and one diverged, with their report."""
    made = write_sweep(
        tmp_path_factory.mktemp("out") / "runs" / "quick", grid(dials=(0.75,), betas=2, seeds=2), skip=[3], diverged=[7]
    )
    write_report(made)
    return made


def test_importing_harness_loads_no_library() -> None:
    heavy = ("pandas", "numpy", "torch", "pyarrow", "mlflow")
    script = f"import sys, harness; print([name for name in {heavy} if name in sys.modules]); from harness import load"
    script += "; load('nowhere')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n"
    assert "no plan.json here" in done.stderr


def test_runs_are_results_and_costs_with_types(folder: Path) -> None:
    runs = load(folder).runs
    results, costs = (pd.read_csv(folder / name, converters=FULL) for name in ("results.csv", "costs.csv"))
    assert list(runs.columns) == [*results.columns, *costs.columns[1:]]
    assert runs.run_key.tolist() == results.run_key.tolist()
    for name in FULL:
        np.testing.assert_array_equal(runs[name].to_numpy(), results[name].to_numpy())
    np.testing.assert_array_equal(runs["flops"].to_numpy(), costs["flops"].to_numpy())
    kinds = {name: str(kind) for name, kind in runs.dtypes.items()}
    assert {kinds[name] for name in ("status", "objective", "corruption", "labels", "host")} == {"category"}
    assert {kinds[name] for name in ("beta", "rate", "misaligned", "ranking_accuracy", "seconds")} == {"float64"}
    assert {kinds[name] for name in ("seed", "steps")} == {"int64"}
    assert "object" not in kinds.values()
    assert runs.status.value_counts().to_dict() == {"done": 22, "diverged": 1, "pending": 1}


def test_a_measure_is_the_registry_row_over_each_run_step_and_split(folder: Path) -> None:
    sweep = load(folder)
    table = sweep.measure("undesirable_zone")
    assert list(table.columns) == [
        *("run_key", "objective", "beta", "corruption", "rate", "misaligned", "seed", "step", "split", "value")
    ]
    assert len(table) == 23 * len(STEPS) * 3  # three splits; the pending run has no rows
    assert set(table.split.astype(str)) == {"train_observed", "eval_clean", "ood"}
    row = table.query("split == 'ood' and step == 20").iloc[5]
    path = find_run(folder, row.run_key)
    assert path is not None
    records = where(read_table(path / "examples.parquet"), step=20, split="ood")
    assert row.value == METRICS["undesirable_zone"].compute(records)
    runs = sweep.runs.set_index("run_key")
    last = table.query("split == 'eval_clean' and step == step.max()").set_index("run_key").value
    done = runs.index[runs.status == "done"]
    np.testing.assert_array_equal(last[done].to_numpy(), runs.undesirable_zone[done].to_numpy())


def test_samples_and_measures_that_need_a_setting(folder: Path) -> None:
    sweep = load(folder)
    drawn = sweep.measure("gold_reward")
    assert (len(drawn), set(drawn.split.astype(str)), drawn.step.max()) == (46, {"eval_clean", "ood"}, 200)
    key = drawn.run_key[0]
    own = sweep.samples(key)
    clean = own[own["split"] == "eval_clean"].gold_reward.astype(float).mean()
    assert drawn.value[drawn.split == "eval_clean"].iloc[0] == pytest.approx(clean)
    assert set(sweep.measure("memorised_flip_rate").split.astype(str)) == {"train_observed"}
    needs_beta = next(name for name, row in METRICS.items() if "beta" in row.settings)
    assert sweep.measure(needs_beta).value.notna().any()


def test_examples_and_ledger_of_one_run(folder: Path) -> None:
    sweep = load(str(folder))
    key = sweep.runs.run_key[0]
    table = sweep.examples(key[:10])
    assert (table["split"].dtype, table.corrupted.dtype, table.policy_chosen.dtype) == ("category", bool, np.float32)
    assert len(table) == len(STEPS) * (64 + 64 + 32)
    assert sweep.runs.corruption[0] == "none"
    assert list(sweep.ledger(key).columns) == ["id"]
    assert len(sweep.ledger(key)) == 0


def test_cells_and_contrasts_are_the_reports(folder: Path, tmp_path: Path) -> None:
    sweep = load(folder)
    assert str(sweep.cells.measure.dtype) == str(sweep.contrasts.verdict.dtype) == "category"
    assert sweep.cells["mean"].dtype == float
    with (folder / "report" / "cells.csv").open(encoding="utf-8", newline="") as file:
        found = [float(row["mean"] or "nan") for row in csv.DictReader(file)]
    np.testing.assert_array_equal(sweep.cells["mean"], found)
    bare = write_sweep(tmp_path / "bare", grid(dials=(0.75,), betas=1, seeds=1, rates=(0.0,)))
    with pytest.raises(InputError, match="run `harness report"):
        _ = load(bare).cells


def test_errors_name_the_way_out(folder: Path) -> None:
    sweep = load(folder)
    with pytest.raises(InputError, match="did you mean 'undesirable_zone'"):
        sweep.measure("undesirable_zon")
    with pytest.raises(InputError, match="column 'vacuous' is missing"):
        sweep.measure("vacuous_rate")
    pending = sweep.runs.run_key[sweep.runs.status == "pending"].item()
    with pytest.raises(InputError, match=r"\(pending\) has no examples\.parquet"):
        sweep.examples(pending)
    near = pending[:7] + ("0" if pending[7] != "0" else "1")
    with pytest.raises(InputError, match=f"unknown run '{near}'.*did you mean '{pending[:8]}'"):
        sweep.samples(near)
    with pytest.raises(InputError, match="unknown run ''"):
        sweep.find("")
    shared = next(c for c in "0123456789abcdef" if sweep.runs.run_key.str.startswith(c).sum() > 1)
    with pytest.raises(InputError, match="use a longer prefix"):
        sweep.find(shared)
    with pytest.raises(InputError, match=r"no plan\.json here"):
        load(folder.parent)


def test_the_example_of_the_documentation_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/notebooks.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(folder.parents[1])
    found: dict[str, pd.DataFrame] = {}
    exec(compile(code[1], "docs/notebooks.md", "exec"), found)
    assert len(found["zone"]) == 23 * len(STEPS)
    assert len(found["worst"]) == 64 * len(STEPS)
