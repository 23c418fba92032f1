"""lm-eval tasks of a user's own: found, refused where they are code, run, and run again when they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import run as command
from harness.evaluation.benchmarks import check_tasks
from harness.evaluation.own_tasks import own_tasks
from harness.storage.evaluations import read_evaluations
from harness.types import InputError
from tests.commands import harness
from tests.evaluation.test_lm_eval import SPEC, write_pairs

DOCS = [{"q": f"Which is round? {i}", "choices": [" a ball", " a box"], "gold": 0} for i in range(6)]


def task(folder: Path, name: str, **more: Any) -> Path:
    """A two-way choice over local rows; returns its YAML file."""
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS), encoding="utf-8")
    config = {
        "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "choices",
        "doc_to_target": "gold", "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **more,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def as_code(path: Path) -> None:
    """The same task with its text from a function beside it, which leaves a file behind when it is imported."""
    marker = path.parent / "imported"
    (path.parent / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\ndef text(doc): return doc['q']\n")
    config = path.read_text(encoding="utf-8")
    path.write_text(config.replace("doc_to_text: '{{q}}'", "doc_to_text: !function own.text"), encoding="utf-8")


def test_names_groups_tags_and_includes(tmp_path: Path) -> None:
    task(tmp_path, "one", tag="mine")
    task(tmp_path, "two", tag=["mine", "second"])
    (tmp_path / "three.yaml").write_text("include: two.yaml\ntask: three\ntag: []\n")
    (tmp_path / "all.yaml").write_text("group: all\ntask: [one, inner]\n")
    (tmp_path / "inner.yaml").write_text("group: inner\ntask: [three, arc_easy]\n")
    own = own_tasks(tmp_path, "--include-path")
    assert own.members["all"] == ("one", "three", "arc_easy") and own.members["mine"] == ("one", "two")
    assert own.members["three"] == ("three",) and own.code == {} and set(own.digests) >= {"one", "two", "three"}
    assert check_tasks(["all", "preference"], "tasks", own) == ("all", "preference")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class": "x.Y"}, "class"),
        ({"dataset_kwargs": {"trust_remote_code": True}}, "unsafe code"),
        ({"unsafe_code": True}, "unsafe code"),
        ({"doc_to_text": "{{ q.__class__ }}"}, "doc_to_text: a template with `__`"),
    ],
)
def test_what_is_code_is_refused_unless_trusted(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    task(tmp_path, "mine", **change)
    (tmp_path / "child.yaml").write_text("include: mine.yaml\ntask: child\n")
    own = own_tasks(tmp_path, "--include-path")
    for name in ("mine", "child"):
        with pytest.raises(InputError, match=f"'{name}' runs code .mine.yaml: .*{reason}.*--trust-task-code"):
            check_tasks([name], "--tasks", own)
    assert check_tasks(["mine"], "--tasks", own, trusted=True) == ("mine",)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--include-path: .* is no folder"):
        own_tasks(tmp_path / "nowhere", "--include-path")
    with pytest.raises(InputError, match="no lm-eval task in"):
        own_tasks(tmp_path, "--include-path")
    task(tmp_path, "arc_easy")
    with pytest.raises(InputError, match=r"'arc_easy' of .* is a task of lm-eval itself"):
        check_tasks(["arc_easy"], "--tasks", own_tasks(tmp_path, "--include-path"))
    (tmp_path / "again.yaml").write_text("include: arc_easy.yaml\n")
    with pytest.raises(InputError, match=r"'arc_easy' is defined in .* keep one"):
        own_tasks(tmp_path, "--include-path")
    (tmp_path / "again.yaml").write_text("include: again.yaml\ntask: again\n")
    with pytest.raises(InputError, match="includes itself"):
        own_tasks(tmp_path, "--include-path")
    (tmp_path / "again.yaml").write_text("group: again\ntask: [again]\n")
    with pytest.raises(InputError, match="'again' contains itself"):
        own_tasks(tmp_path, "--include-path")
    (tmp_path / "again.yaml").write_text("group: again\ntask: [humaneval]\n")
    (tmp_path / "arc_easy.yaml").unlink()
    with pytest.raises(InputError, match="holds 'humaneval', which is neither beside it nor on the list"):
        check_tasks(["again"], "--tasks", own_tasks(tmp_path, "--include-path"))


def test_own_tasks_run_in_a_sweep_and_by_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "pairs.jsonl")
    path = task(tmp_path / "tasks", "round")
    block = {"tasks": ["round"], "include_path": "tasks", "limit": 20}
    objectives = [{"name": "dpo", "beta": 0.1}]
    spec = {**SPEC, "objectives": objectives, "evaluation": {**SPEC["evaluation"], "lm_eval": block}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    done = harness("sweep", tmp_path / "spec.yaml", "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = [found.parent for found in (tmp_path / "runs" / "real").glob("*/result.json")]
    (first,) = read_evaluations(folder)
    assert first.task == "round" and first.n == 6 and 0 <= first.metrics["acc"] <= 1
    assert first.change["acc"].mean == first.metrics["acc"] - first.change["acc"].reference
    assert "Lost: " in (page := (tmp_path / "runs" / "real" / "report" / "report.md").read_text()) or (
        "No task is shown to have lost" in page
    )
    words = ["eval", str(folder), "--tasks", "round", "--limit", "20", "--include-path", str(tmp_path / "tasks")]
    assert command([*words, "--json"]) == 0
    assert read_evaluations(folder) == (first,)  # nothing changed, nothing run again
    as_code(path)
    capsys.readouterr()
    assert command(words) == 2
    assert "'round' runs code (round.yaml: doc_to_text: !function own.text)" in capsys.readouterr().err
    assert not (tmp_path / "tasks" / "imported").exists()
    assert command([*words, "--trust-task-code"]) == 0
    (again,) = read_evaluations(folder)
    assert again.metrics == first.metrics and again.version != first.version
    assert (tmp_path / "tasks" / "imported").exists()
