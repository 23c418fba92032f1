"""No path of this machine stands in what a report or a published folder shows: names of files and folders alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness import publish, report
from harness.text import without_places
from harness.types import PathModelSpec
from tests.report.fixture import grid, write_sweep

HOME = "/home/jqplanted"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over two local models, with paths of this machine in the configuration and in every kind of note."""
    runs = []
    for name in ("small", "large"):
        model = PathModelSpec(
            path=f"{HOME}/models/{name}",
            sha256=name[0] * 64,
            reference=f"{HOME}/models/base",
            reference_sha256="c" * 64,
        )
        for run in grid(dials=None, seeds=2, items=32):
            assert run.data is not None
            evaluation = replace(run.evaluation, prompts=f"{HOME}/asked.jsonl", prompts_sha256="d" * 64)
            data = replace(run.data, path=f"{HOME}/pairs.jsonl")
            runs.append(replace(run, model=model, data=data, evaluation=evaluation))
    note = f"policies start from {HOME}/models/small and are compared with the reference {HOME}/models/base"
    folder = write_sweep(tmp_path_factory.mktemp("out") / "private", runs, notes=[note])
    spec = f"data:\n  path: {HOME}/pairs.jsonl\nmodel:\n- path: {HOME}/models/small\n  reference: {HOME}/models/base\n"
    (folder / "sweep.yaml").write_text(spec, encoding="utf-8")
    for path in folder.glob("*/provenance.json"):
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"notes": [note]}), encoding="utf-8")
    finding = {"severity": "warning", "text": note, "field": "model.path", "fix": f"look at {HOME}/models/small"}
    (folder / "preflight.json").write_text(json.dumps([finding]), encoding="utf-8")
    report(folder)
    return folder


def test_a_report_names_files_without_their_place(private: Path) -> None:
    files = [private / "results.csv", *(path for path in (private / "report").rglob("*") if path.is_file())]
    assert len(files) > 5
    assert [str(path) for path in files if HOME.encode() in path.read_bytes()] == []
    page = (private / "report" / "report.md").read_text("utf-8")
    assert "policies start from small and are compared with the reference base" in page
    assert set(pd.read_csv(private / "results.csv")["model.path"]) == {"small", "large"}


def test_a_published_folder_has_no_name_of_a_file_either(private: Path, tmp_path: Path) -> None:
    published = publish(private, tmp_path / "out").folder
    for path in published.rglob("*"):
        if path.is_file():
            text = path.read_text("utf-8")
            assert not [word for word in (HOME, "path small", "path large", "pairs.jsonl") if word in text], path
    assert {"sss", "lll"} == {sha[:3] for sha in pd.read_csv(published / "results.csv")["model.sha256"]}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("at /home/me/my.jsonl: row 3", "at my.jsonl: row 3"),
        (r"data.path: C:\Users\me\pairs.jsonl", "data.path: pairs.jsonl"),
        ('["~/models/base"]', '["base"]'),
        ("tokens/s and/or https://host.example/a/b", "tokens/s and/or https://host.example/a/b"),
        ("org/name with /think", "org/name with /think"),
    ],
)
def test_what_is_a_place(text: str, left: str) -> None:
    assert without_places(text) == left
