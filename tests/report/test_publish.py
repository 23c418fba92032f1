"""`harness publish`: complete for readers elsewhere, and silent about texts, paths, hosts and users."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness import InputError, publish
from harness.identity import canonical_json
from harness.report.data.published import PUBLISHED, VERSION, read_published
from harness.report.data.sweep import read_sweep
from harness.report.page import write_report
from harness.types import PathModelSpec
from tests.commands import harness
from tests.report.fixture import grid, write_sweep

ROOT = Path(__file__).parents[2]
PROMPT, RESPONSE, GROUP = "does my landlord Zyxwv owe me 40 pounds ?", "ask Zyxwv in writing .", "tenancy-zyxwv"
USER, HOST = "jqplanted", "box17.planted.example"
PLANTED = ("zyxwv", "landlord", USER, "box17", "planted.example", "/home", "/mnt", "traceback", "secret_rows")


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep on a user's pairs with texts, paths, host and user wherever a sweep's folder can hold them."""
    home = f"/home/{USER}"
    runs = []
    for run in grid(dials=None, seeds=2, items=32):
        assert run.data is not None
        model = PathModelSpec(path=f"{home}/models/tiny", sha256="a" * 64, revision=f"{USER}-branch")
        steps = ((("kind", "uniform_flip"), ("rate", 0.1), ("params", (("source", f"/mnt/{USER}/secret_rows"),))),)
        corruption = replace(run.corruption, params=(("steps", steps),)) if run.corruption.kind != "none" else None
        data = replace(run.data, path=f"{home}/secret_rows.jsonl")
        runs.append(replace(run, data=data, model=model, corruption=corruption or run.corruption))
    text = {"prompt": PROMPT, "response": RESPONSE, "group": GROUP}
    note = f"{home}/secret_rows.jsonl: row 3 dropped: {PROMPT}"
    folder = write_sweep(tmp_path_factory.mktemp("out") / "private", runs, notes=[note], diverged=[4], text=text)
    for path in folder.glob("*/result.json"):
        value = json.loads(path.read_text("utf-8"))
        del value["sha256"]
        value["costs"]["host"] = HOST
        value["results"][f"slice/category/{GROUP}"] = 0.5
        value |= {"error": f"Traceback in {home}: {PROMPT}", "name": f"{USER} run"}
        value["sha256"] = hashlib.sha256(canonical_json(value).encode()).hexdigest()
        path.write_text(json.dumps(value), encoding="utf-8")
    for path in folder.glob("*/provenance.json"):
        value = json.loads(path.read_text("utf-8"))
        value["machine"] = {"python": "3.11", "host": HOST, "user": USER, "device": "cpu"}
        value["reference"] = {"sha256": "b" * 64, "parameters": 57664, "setting": f"{home}/models"}
        value |= {"notes": [note], "command": f"harness sweep {home}/spec.yaml"}
        path.write_text(json.dumps(value), encoding="utf-8")
    (folder / "preflight.json").write_text(json.dumps([{"severity": "error", "text": note}]), encoding="utf-8")
    return folder


def test_nothing_planted_leaves_the_machine(private: Path, tmp_path: Path) -> None:
    everything = "".join(path.read_text("utf-8", "replace") for path in private.rglob("*") if path.is_file()).lower()
    assert all(word in everything for word in PLANTED if word != "secret_rows"), "nothing was planted"
    done = harness("publish", private, "--to", tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}\n"), done.stderr
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"published.json", "results.csv", "cells.csv", "contrasts.csv", "README.md", "plane.svg"} <= {
        path.name for path in files
    }
    for path in files:
        text = path.read_bytes().decode("utf-8").lower()
        assert [word for word in (*PLANTED, str(tmp_path).lower(), str(private.parent).lower()) if word in text] == []


def test_the_tables_are_those_of_the_sweep(pristine: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pristine, tmp_path / "pristine")
    write_report(folder)
    published = publish(folder, tmp_path / "out")
    assert published.folder == tmp_path / "out" and "plane" in published.figures
    for here, there in (("results.csv", "results.csv"), ("cells.csv", "report/cells.csv"),
                        ("contrasts.csv", "report/contrasts.csv")):  # fmt: skip
        assert (published.folder / here).read_bytes() == (folder / there).read_bytes()
    again, source = read_published(published.folder), read_sweep(folder)
    assert [(run.key, run.status, run.arm, run.condition) for run in again.runs] == [
        (run.key, run.status, run.arm, run.condition) for run in source.runs
    ]
    before = (published.folder / PUBLISHED).read_bytes()
    publish(folder, published.folder)
    assert (published.folder / PUBLISHED).read_bytes() == before


def test_the_schema_page_names_every_field(private: Path, tmp_path: Path) -> None:
    record = json.loads((publish(private, tmp_path / "out").folder / PUBLISHED).read_text("utf-8"))
    page = (ROOT / "docs" / "publish.md").read_text("utf-8")
    run = record["runs"][0]
    fields = [*record, *run, *run["costs"], *run["pairs"], *run["config"]]
    fields += [name for part in run["provenance"].values() for name in part]
    missing = [name for name in fields if not re.search(rf"\b{name}\b", page)]
    assert missing == []
    assert f"version {VERSION}" in page and record["version"] == VERSION


def test_changed_and_foreign_folders_are_refused(pristine: Path, tmp_path: Path) -> None:
    folder = publish(pristine, tmp_path / "out").folder
    path = folder / PUBLISHED
    text = path.read_text("utf-8")
    path.write_text(text.replace('"steps": 200', '"steps": 201', 1), encoding="utf-8")
    with pytest.raises(InputError, match="does not match its checksum"):
        read_published(folder)
    path.write_text(text.replace('"version": 1', '"version": 2', 1), encoding="utf-8")
    with pytest.raises(InputError, match="version 2 of the format; this harness reads 1"):
        read_published(folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="exists and is no published folder"):
        publish(pristine, tmp_path / "full")
    other = shutil.copytree(pristine, tmp_path / "other")
    plan = json.loads((other / "plan.json").read_text("utf-8")) | {"name": "another"}
    (other / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    with pytest.raises(InputError, match="holds the published form of sweep 'pristine', not of 'another'"):
        publish(other, folder)
    assert harness("publish", tmp_path / "nothing", "--to", tmp_path / "x").returncode == 2
