"""Large references are scored by all workers before packs train: the same numbers, and nothing is scored twice."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from harness.inputs import reference_cache
from harness.run_names import planned_runs
from harness.storage.atomic import read_json
from harness.storage.runs import find_run, read_table
from harness.sweep import packing
from harness.sweep.console import CommandOutput
from harness.sweep.scheduler import SweepOptions, run_packs
from harness.worker import score_reference
from tests.models.families import write
from tests.sweep.test_path_models import data, sweep  # noqa: F401 - a fixture

CORRUPTIONS = [
    {"kind": "none"},
    {"kind": "truncate", "rate": 0.3},
    {"kind": "curate_drop", "rate": 0.2},
]


def run(loaded, out, workers: int = 2, threads: int = 1) -> dict[str, dict[str, np.ndarray]]:
    """Train every run in this process; its examples by run key."""
    folder, runs = out / loaded.name, planned_runs(loaded.runs)
    folder.mkdir(parents=True)
    options = SweepOptions("inline", track=False, threads=threads)
    assert not run_packs(folder, len(runs), runs, workers, CommandOutput(Console(quiet=True)), options)
    return {one.key: read_table(find_run(folder, one.key) / "examples.parquet") for one in runs}


@pytest.fixture
def loaded(tmp_path, data):  # noqa: F811
    return sweep(
        tmp_path, write("llama", tmp_path / "model"), data, model={"lora": {"rank": 4}}, corruptions=CORRUPTIONS
    )


def test_results_are_those_of_packs_that_score_for_themselves(loaded, tmp_path, monkeypatch):
    alone = run(loaded, tmp_path / "alone")
    monkeypatch.setattr(packing, "THREADED", 0)
    monkeypatch.setattr(score_reference, "PAIRS", 5)
    monkeypatch.setattr(score_reference, "SAVE_SECONDS", 0.0)
    scored: list[int] = []
    own = reference_cache.score_responses
    monkeypatch.setattr(reference_cache, "score_responses", lambda *args: scored.append(len(args[2])) or own(*args))
    shared = run(loaded, tmp_path / "shared")
    assert not scored  # everything was there when packs asked
    assert alone.keys() == shared.keys()
    for key, table in alone.items():
        for name, values in table.items():
            assert np.array_equal(values, shared[key][name], equal_nan=values.dtype.kind == "f"), (key, name)


def test_a_failing_share_is_left_to_the_packs(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "THREADED", 0)

    def broken(*_: object) -> None:
        raise RuntimeError("no room on purpose")

    monkeypatch.setattr(score_reference, "score_responses", broken)
    assert run(loaded, tmp_path / "runs")
    assert "no room on purpose" in (tmp_path / "runs" / "path" / "errors.log").read_text()


def test_a_pack_has_the_threads_of_the_plan(loaded, tmp_path):
    import torch

    before = torch.get_num_threads()
    try:
        runs = run(loaded, tmp_path / "runs", threads=2)
        folder = find_run(tmp_path / "runs" / loaded.name, next(iter(runs)))
        assert read_json(folder / "provenance.json")["machine"]["threads"] == 2
        tables = list((tmp_path / "runs" / "cache" / "reference").glob("*.safetensors"))
        run(loaded, tmp_path / "again" / "runs", threads=1)
        other = list((tmp_path / "again" / "runs" / "cache" / "reference").glob("*.safetensors"))
        assert {path.name for path in tables}.isdisjoint(path.name for path in other)  # bits depend on them
    finally:
        torch.set_num_threads(before)
