"""`model.reference_logps`: a sweep that starts from log-probs computed elsewhere, and a file that does not fit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from harness.cli import run as command
from harness.config.load import load_sweep
from harness.diagnose.export import export_reference
from harness.identity import run_key
from harness.inputs import reference_cache
from harness.inputs.encoded import encode_inputs, open_inputs
from harness.inputs.reference_cache import scorer
from harness.storage.logps_file import HIDDEN, read_logps, write_logps
from harness.storage.runs import read_table
from harness.types import InputError
from harness.worker.check_reference import check_reference
from tests.models.families import write
from tests.sweep.test_path_models import SPEC
from tests.sweep.test_path_models import data as data  # a fixture

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write("llama", folder / "start", 0)
    write("llama", folder / "other", 1)
    return folder


def spec(folder: Path, models: Path, data: Path, model: dict | None = None, **sections) -> Path:
    value = {
        **SPEC,
        "data": {**SPEC["data"], "path": str(data / "plain.jsonl"), **sections.pop("limits", {})},
        "model": {"path": str(models / "start"), "lora": {"rank": 4}, **(model or {})},
        "objectives": [{"name": "dpo"}, {"name": "ipo"}],
        "corruptions": [
            {"kind": "none"},
            {"kind": "uniform_flip", "rate": 0.3},
            {"kind": "truncate", "rate": 0.3},
        ],
        "seeds": 2,
        **sections,
    }
    folder.mkdir(exist_ok=True)
    (folder / "path.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    return folder / "path.yaml"


@pytest.fixture(scope="module")
def first(models: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep, with `reference.parquet` beside it."""
    folder = tmp_path_factory.mktemp("first")
    words = ["sweep", str(spec(folder, models, data)), "--out", str(folder / "runs"), "--quiet", "--engine", "inline"]
    assert command(words) == 0
    out = str(folder / "reference.parquet")
    assert command(["export-logps", str(folder / "runs" / "path"), "--reference", "--out", out]) == 0
    return folder


def results(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name != "run_key"} for row in csv.DictReader(file)]


def test_a_sweep_from_the_file_of_another_gives_the_same_numbers_and_scores_nothing(
    first: Path, models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_cache, "score_responses", lambda *_: pytest.fail("scored"))
    path = spec(tmp_path, models, data, {"reference_logps": str(first / "reference.parquet")})
    words = ["sweep", str(path), "--out", str(tmp_path / "runs"), "--quiet", "--engine", "inline"]
    assert command(words) == 0
    ours, theirs = results(tmp_path / "runs" / "path"), results(first / "runs" / "path")
    assert len(ours) == 12
    assert ours == theirs
    runs = load_sweep(path).runs
    assert not {run_key(run) for run in runs} & {run_key(run) for run in load_sweep(first / "path.yaml").runs}
    # CHES needs the reference's hidden states; the file carries what it is computed from.
    folders = [sorted((place / "runs" / "path").glob("*-dpo*")) for place in (tmp_path, first)]
    for one in folders[0]:
        table = read_table(one / "examples.parquet")
        name = one.name.partition("-")[2]
        [other] = [read_table(two / "examples.parquet") for two in folders[1] if two.name.partition("-")[2] == name]
        assert np.isfinite(table["ches"]).all()
        for column in ("ches", "policy_chosen", "reference_rejected", "loss"):
            assert np.array_equal(table[column], other[column])


def test_the_file_is_a_log_prob_file_that_diagnose_reads(first: Path, tmp_path: Path) -> None:
    table = read_logps(first / "reference.parquet")
    assert set(table.columns["split"]) == {"train", "heldout"}
    assert np.array_equal(table.columns["policy_chosen"], table.columns["reference_chosen"])
    assert all(len(key) == 64 for key in table.columns["tokens"])
    assert table.meta["dtype"] == "float32"
    words = ["diagnose", "--logps", str(first / "reference.parquet"), "--beta", "0.1", "--out", str(tmp_path)]
    assert command(words) == 0


def changed(source: Path, to: Path, **columns) -> Path:
    table = read_logps(source)
    own = {**table.columns, **columns}
    write_logps(to, {name: values for name, values in own.items() if values is not None}, table.meta)
    return to


def test_what_does_not_fit_is_refused_by_content(first: Path, models: Path, data: Path, tmp_path: Path) -> None:
    file = first / "reference.parquet"

    def scored(model: dict, **sections) -> None:
        run = load_sweep(spec(tmp_path, models, data, model, **sections)).runs[0]
        encoded = encode_inputs(open_inputs(run, tmp_path / "cache"), scorer(tmp_path / "cache", CPU))
        check_reference(run, encoded, CPU)

    named = {"reference_logps": str(file)}
    scored(named)
    # Another length limit gives other token ids.
    with pytest.raises(
        InputError, match=r"model\.reference_logps: .*holds .* of the .* responses with these token ids"
    ):
        scored(named, limits={"max_length": 20, "max_prompt_length": 8})
    # Another model of the same tokenizer gives other log-probs.
    with pytest.raises(
        InputError, match=r"reference\.parquet holds other log-probs than the reference gives: 12 of 12"
    ):
        scored({**named, "path": str(models / "other")})
    # The same model as a reference of its own: the file is its table.
    scored({**named, "path": str(models / "other"), "reference": str(models / "start")})


def test_a_file_that_changes_after_the_plan_is_refused(first: Path, models: Path, data: Path, tmp_path: Path) -> None:
    own = changed(first / "reference.parquet", tmp_path / "own.parquet")
    run = load_sweep(spec(tmp_path, models, data, {"reference_logps": "own.parquet"})).runs[0]
    changed(own, own, **{name: np.full(len(read_logps(own)), np.nan) for name in HIDDEN})
    with pytest.raises(InputError, match=r"own\.parquet changed since the sweep was planned"):
        open_inputs(run, tmp_path / "cache")
    # Without what CHES is computed from, CHES alone is unknown.
    run = load_sweep(tmp_path / "path.yaml").runs[0]
    made = encode_inputs(open_inputs(run, tmp_path / "cache"), scorer(tmp_path / "cache", CPU))
    made.pairs.score_rows(made.evals["eval_clean"])
    held = slice(made.evals["eval_clean"].start, made.evals["eval_clean"].stop)
    assert np.isfinite(made.pairs.reference[0][held]).all() and np.isnan(made.pairs.products[held]).all()


def test_files_that_cannot_serve_are_refused_by_the_plan(
    first: Path, models: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = first / "reference.parquet"
    count = len(read_logps(source))
    unknown = np.full(count, np.nan)
    table = read_logps(source)
    moved = table.columns["reference_chosen"].copy()
    twice = {name: np.concatenate([values, values]) for name, values in table.columns.items()}
    twice["reference_chosen"] = np.concatenate([moved, moved - 1])
    twice["policy"] = np.array(["one"] * count + ["two"] * count, dtype=object)
    for name, columns, said in (
        ("tokens", {"tokens": None}, "rows without `tokens`"),
        ("policy", {"reference_chosen": unknown, "reference_rejected": unknown}, "has no reference log-probs"),
        ("twice", twice, "one response has two reference log-probs"),
    ):
        changed(source, tmp_path / f"{name}.parquet", **columns)
        with pytest.raises(InputError) as caught:
            load_sweep(spec(tmp_path, models, data, {"reference_logps": f"{name}.parquet"}))
        [line] = caught.value.problems
        assert "model.reference_logps: " in line and said in line
    with pytest.raises(InputError, match=r"model\.reference_logps: .*no such file"):
        load_sweep(spec(tmp_path, models, data, {"reference_logps": "gone.parquet"}))


def test_references_of_several_seeds_are_no_file(models: Path, data: Path, tmp_path: Path) -> None:
    alone = {"corruptions": [{"kind": "none"}], "objectives": [{"name": "dpo"}]}
    path = spec(tmp_path, models, data, {"sft_steps": 2}, **alone)
    words = ["sweep", str(path), "--out", str(tmp_path / "runs"), "--quiet", "--engine", "inline"]
    assert command(words) == 0
    with pytest.raises(InputError, match="several references; export the runs of one on their own"):
        export_reference(tmp_path / "runs" / "path", tmp_path / "f.parquet", lambda _: None)
    run = next((tmp_path / "runs" / "path").glob("*-dpo*"))
    assert json.loads((run / "result.json").read_text())["status"] == "done"
    assert export_reference(run, tmp_path / "f.parquet", lambda _: None) > 10
